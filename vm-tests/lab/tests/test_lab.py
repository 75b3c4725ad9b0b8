import unittest
from pathlib import Path

import mounts
import package
import rootfs
import story
from errors import LabError
from layout import Layout


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


STORIES = ("form_cluster", "replication", "node_churn", "store_kills", "full_disk")


class Stories(unittest.TestCase):
    def test_every_story_is_found_by_both_spellings(self):
        for name in STORIES:
            self.assertEqual(story.find(name), story.find(name.replace("_", "-")))

    def test_every_story_compiles(self):
        for name in STORIES:
            path = story.find(name)
            compile(path.read_text(), str(path), "exec")

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
