import tomllib
import unittest

import config


def members(count):
    names = config.node_names(count)
    return [config.Member(name, index, f"{index:064x}") for index, name in enumerate(names, start=1)]


class AgentConfig(unittest.TestCase):
    def test_all_nodes_get_the_same_members(self):
        texts = [tomllib.loads(config.agent_config(name, members(3))) for name in ("n1", "n2", "n3")]
        self.assertEqual(["n1", "n2", "n3"], [text["node_name"] for text in texts])
        self.assertEqual(texts[0]["members"], texts[1]["members"])
        self.assertEqual(
            {"endpoint_id": f"{2:064x}", "addresses": ["10.77.0.2:7431"]}, texts[0]["members"]["n2"]
        )

    def test_virtual_machines_are_translated(self):
        text = tomllib.loads(config.agent_config("n1", members(1)))
        self.assertEqual("tcg", text["vms"]["accel"])
        self.assertEqual({"cpus", "memory_mib"}, set(text["resources"]))


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
