import tomllib
import unittest

import config
from cast import Cast, numbered


def agent_config(name, cast):
    """What the machine's agent is told, read back."""
    numbers = enumerate(cast.names, start=1)
    members = [config.Member(each, index, f"{index:064x}") for index, each in numbers]
    return tomllib.loads(config.agent_config(name, members, cast))


class AgentConfig(unittest.TestCase):
    def test_all_nodes_get_the_same_members(self):
        texts = [agent_config(name, numbered(3)) for name in ("n1", "n2", "n3")]
        self.assertEqual(["n1", "n2", "n3"], [text["node_name"] for text in texts])
        self.assertEqual(texts[0]["members"], texts[1]["members"])
        self.assertEqual(
            {"endpoint_id": f"{2:064x}", "addresses": ["10.77.0.2:7431"]}, texts[0]["members"]["n2"]
        )

    def test_virtual_machines_are_translated(self):
        text = agent_config("n1", numbered(1))
        self.assertEqual("tcg", text["vms"]["accel"])
        self.assertEqual({"cpus", "memory_mib"}, set(text["resources"]))

    def test_an_unlisted_machine_waits_and_nobody_lists_it(self):
        cast = Cast(listed=("n1", "n3"), unlisted=("n2",))
        listed, unlisted = agent_config("n3", cast), agent_config("n2", cast)
        self.assertEqual({"n1", "n3"}, set(listed["members"]))
        self.assertEqual(["10.77.0.3:7431"], listed["members"]["n3"]["addresses"])
        self.assertNotIn("join", listed)
        self.assertIs(True, unlisted["join"])
        self.assertNotIn("members", unlisted)

    def test_settings_are_one_machines_own_and_reach_into_tables(self):
        changes = {"role": "witness", "resources": {"cpus": 2}, "advertise_addresses": ["10.77.0.9:1"]}
        cast = Cast(settings={"n3": changes})
        changed, same = agent_config("n3", cast), agent_config("n1", cast)
        self.assertEqual("witness", changed["role"])
        self.assertEqual({"cpus": 2, "memory_mib": config.MEMORY_MIB}, changed["resources"])
        self.assertEqual(["10.77.0.9:1"], changed["advertise_addresses"])
        self.assertEqual({"n1", "n2", "n3"}, set(changed["members"]))
        self.assertEqual(config.CPUS, same["resources"]["cpus"])
        self.assertNotIn("role", same)


class EndpointId(unittest.TestCase):
    def test_one_line_of_hex_is_an_id(self):
        self.assertEqual("ab" * 32, config.endpoint_id("ab" * 32 + "\n"))

    def test_anything_else_is_refused(self):
        for text in ("", "ab", "AB" * 32, "ab" * 32 + " n1"):
            with self.assertRaisesRegex(ValueError, "endpoint id"):
                config.endpoint_id(text)


class HostsFile(unittest.TestCase):
    def test_every_node_has_a_line(self):
        lines = config.hosts_file(["n1", "n2"]).splitlines()
        self.assertIn("10.77.0.1 n1", lines)
        self.assertIn("10.77.0.2 n2", lines)
