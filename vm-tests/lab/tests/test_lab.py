import tempfile
import tomllib
import unittest
from pathlib import Path
from unittest import mock

import cast
import driver
import facts
import mounts
import package
import rootfs
import story
from errors import LabError
from layout import REPOSITORY, Layout


class Tags(unittest.TestCase):
    def test_two_checkouts_have_two_tags(self):
        first, second = Layout(Path("/a/target")), Layout(Path("/b/target"))
        self.assertNotEqual(first.tag, second.tag)
        self.assertEqual(first.tag, Layout(Path("/a/target")).tag)


class Recipe(unittest.TestCase):
    def test_the_place_is_no_part_of_the_recipe(self):
        self.assertEqual(rootfs.recipe_hash(), rootfs.recipe_hash())
        argv = rootfs.command(Path("/x/tree"), Path("/x/kernel.deb"))
        self.assertIn("/x/tree", argv)
        self.assertTrue(any("polkitd" in argument for argument in argv))


class Owners(unittest.TestCase):
    def test_the_agents_user_is_found(self):
        passwd = "root:x:0:0::/root:/bin/sh\nblixard:!:993:992:Agent:/:/usr/sbin/nologin\n"
        self.assertEqual(package.Owner(993, 992), package.find_owner(passwd, "blixard"))
        with self.assertRaisesRegex(LabError, "sysusers"):
            package.find_owner(passwd, "nobody")


class Overlays(unittest.TestCase):
    def test_a_path_that_would_be_an_option_is_refused_before_the_mount(self):
        with self.assertRaisesRegex(LabError, "comma"):
            mounts.mount_overlay([Path("/a,b")], Path("/nowhere"))


HEAD = 'kind = "members"\ntested = false\nminutes_max = 5\n'


def said(more="", head=HEAD):
    """What a story says whose first lines are these."""
    lines = "".join(f"# {line}\n" for line in (head + more).splitlines())
    return facts.read(f'{lines}"""A story."""\nstart_all()\n', "a.py")


class Facts(unittest.TestCase):
    def test_a_story_that_says_nothing_of_machines_has_three_that_are_listed(self):
        self.assertEqual(facts.Facts("members", False, 5, cast.numbered(3)), said())

    def test_a_story_may_have_more_and_others(self):
        found = said('listed = ["n1"]\nunlisted = ["n3", "n2"]\nsettings.n2.role = "witness"\n').cast
        self.assertEqual(["n1", "n2", "n3"], found.names)
        self.assertEqual({"n2": {"role": "witness"}}, found.settings)
        self.assertEqual(("n3", "n2"), found.unlisted)

    def test_what_can_not_be_is_refused(self):
        for more, word in (
            ('unlised = ["n4"]', "unlised: a story says kind, tested"),
            ('unlisted = "n4"', "unlisted = 'n4' is no list"),
            ('unlisted = ["n3"]', "n3 is there twice"),
            ("settings.n4 = {}", "n4, which is no machine"),
            ("kind", "no TOML"),
        ):
            with self.assertRaisesRegex(LabError, word):
                said(more)
        with self.assertRaisesRegex(LabError, "does not say tested, minutes_max"):
            said(head='kind = "members"\n')
        with self.assertRaisesRegex(LabError, "'import os' stands before its description"):
            facts.read('import os\n"""A story."""\n', "a.py")
        for count in (0, 51):
            with self.assertRaisesRegex(LabError, "1 to 50"):
                cast.numbered(count)

    def test_every_story_says_what_it_is_and_every_machine_has_a_key(self):
        keys = {path.stem for path in (REPOSITORY / "vm-tests" / "keys").glob("*.key")}
        for name in story.names():
            self.assertLessEqual(set(story.facts_of(story.find(name)).cast.names), keys)


class Common(unittest.TestCase):
    def test_stories_and_what_stands_before_them_share_their_names(self):
        with tempfile.TemporaryDirectory() as home:
            scripts = [Path(home) / name for name in ("first.py", "second.py")]
            scripts[0].write_text("def twice():\n    return 2 * number\n")
            scripts[1].write_text("number = 4\nseen.append(twice())\nfail()\n")
            seen = []
            machines = mock.Mock(symbols=lambda: {"seen": seen})
            frames = ""
            try:
                driver.Driver.run(machines, scripts)
            except NameError as error:
                frames = story.script_frames(error, scripts)
            self.assertEqual([8], seen)
            self.assertEqual("  second.py:3: fail()", frames)

    def test_values_become_toml(self):
        symbols = {"machines": []}
        exec(story.COMMON.read_text(), symbols)
        table = {"a": [1, "x \"y\""], "b": {"c": True, "d e": {}}}
        self.assertEqual({"v": table}, tomllib.loads(f"v = {symbols['toml'](table)}"))


class Stories(unittest.TestCase):
    def test_every_story_is_found_by_both_spellings(self):
        for name in story.names():
            self.assertEqual(story.find(name), story.find(name.replace("_", "-")))

    def test_every_story_compiles(self):
        for name in story.names():
            path = story.find(name)
            compile(path.read_text(), str(path), "exec")
            compile(story.COMMON.read_text() + path.read_text(), "as under NixOS", "exec")

    def test_what_stands_before_every_story_is_none(self):
        self.assertNotIn("common", story.names())
        with self.assertRaisesRegex(LabError, "no story"):
            story.find("common")

    def test_an_unknown_story_names_those_there_are(self):
        with self.assertRaisesRegex(LabError, "replication"):
            story.find("absent")

    def test_what_a_story_reads_can_be_set(self):
        source = story.find("store_kills").read_text()
        words = ["KILLS=1000", "LEADER_KILLS=0"]
        wanted = {"STORY_KILLS": "1000", "STORY_LEADER_KILLS": "0"}
        self.assertEqual(wanted, story.settings(source, words))
        self.assertEqual({}, story.settings(source, []))

    def test_what_it_does_not_read_is_refused_with_what_it_does(self):
        source = story.find("store_kills").read_text()
        for word in ("KILS=1000", "KILLS", "=1"):
            with self.assertRaisesRegex(LabError, "KILLS, LEADER_KILLS"):
                story.settings(source, [word])
        with self.assertRaisesRegex(LabError, "nothing"):
            story.settings("KILLS = 1", ["KILLS=2"])
