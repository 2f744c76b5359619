"""The page's own scripts, outside of a browser: what is shown and kept when several things happen at a time."""

import shutil
import subprocess
from pathlib import Path

import pytest

import dkpnet_ext

NODE = shutil.which("node")
_VERSION = subprocess.run([NODE, "--version"], capture_output=True, text=True).stdout.strip("v\n") if NODE else ""
pytestmark = pytest.mark.skipif(
    [int(part) for part in _VERSION.split(".")[:2] if part] < [20, 19],
    reason=f"node {_VERSION or 'is not installed'}: the scripts are modules, which it runs from 20.19 on",
)
SCRIPTS = (Path(dkpnet_ext.__file__).parent / "assets" / "annotate").as_uri()


def run(script: str) -> list[str]:
    """What a module prints; it imports from `SCRIPTS`."""
    text = script.replace("SCRIPTS", SCRIPTS)
    done = subprocess.run([NODE, "--input-type=module", "-e", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_picture_asked_for_last_is_shown():
    """At commit 4eb5a94 a large picture that was decoded later took the place of a small one, under whose labels it stood."""
    assert run("""
        import {View} from "SCRIPTS/view.js";
        let closed = 0;
        globalThis.createImageBitmap = (blob) => new Promise((done) =>
          setTimeout(() => done({width: blob, height: blob, close: () => closed++}), blob));
        const view = new View({clientWidth: 100, clientHeight: 100});
        const both = [view.open(60, [60, 60]), view.open(5, [5, 5])];
        await Promise.all(both);
        console.log(view.size[0], view.levels[0].width, closed);
        const late = view.open(40, [40, 40]);
        view.close();
        await late;
        console.log(view.levels.length);
    """) == ["5", "5", "1", "0"]


SERVER = """
    import {Labels} from "SCRIPTS/labels.js";
    const answers = [];
    globalThis.fetch = async (address, {body}) => {
      const answer = answers.shift();
      return {status: answer.status ?? 200, json: async () => answer};
    };
    const heads = (count) => Array.from({length: count}, (_, i) => [i, i]);
    const state = (count, version) => ({name: "1.jpg", points: heads(count), ignore: [], done: false, version});
    const settled = () => new Promise((done) => setTimeout(done, 20));
    const labels = new Labels(state(0, "a"), () => {}, () => {});
"""


def test_what_a_conflict_replaced_comes_back_by_undo():
    """Also after another picture was opened: the page keeps the labels until they are looked at."""
    assert run(
        SERVER
        + """
        answers.push({...state(2, "b"), status: 409});
        labels.change({points: heads(30)});
        await settled();
        console.log(labels.now.points.length, labels.met, labels.unsaved);
        labels.take(state(2, "b"));
        console.log(labels.now.points.length, labels.met);
        answers.push({version: "c"});
        labels.undo();
        await settled();
        console.log(labels.now.points.length, labels.met, labels.version);
    """
    ) == ["2", "true", "false", "2", "true", "30", "false", "c"]


def test_labels_that_are_opened_again_take_what_others_changed():
    assert run(
        SERVER
        + """
        answers.push({version: "b"});
        labels.change({points: heads(3)});
        labels.take(state(0, "a"));
        console.log(labels.now.points.length);
        await settled();
        labels.take(state(7, "c"));
        console.log(labels.now.points.length, labels.unsaved, labels.version);
        answers.push({version: "d"});
        labels.undo();
        console.log(labels.now.points.length);
    """
    ) == ["3", "7", "false", "c", "3"]
