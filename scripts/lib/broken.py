"""Broken on purpose: patches that each break doorbell in one place, the tests that see it, and a copy of the source for the reader."""

import glob
import os
import re
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PATCHES = os.path.join(ROOT, "lessons", "broken")
# A target directory of its own: the program that is built from a broken copy must not take the place of the right one.
WORK = os.path.join(ROOT, "target", "broken")
SOURCES = ["Cargo.toml", "Cargo.lock", "build.rs", "src", "tests", "benches", "guest-images/probe", "lessons", "docs", "README.md", "scripts"]


class Broken:
    def __init__(self, path):
        self.path = path
        with open(path) as file:
            head = file.read().split("\n--- ")[0]
        self.number = int(re.match(r"(\d+)-", os.path.basename(path))[1])
        self.facts = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)

        self.title, self.symptom, self.look = (self.facts[key] for key in ("title", "symptom", "look"))

    def test_name(self):
        return self.facts["test"].split()[-1]

    def copy(self, place):
        """A fresh copy of the source with the patch in it."""
        shutil.rmtree(place, ignore_errors=True)
        for source in SOURCES:
            to = os.path.join(place, source)
            os.makedirs(os.path.dirname(to), exist_ok=True)
            whole = os.path.join(ROOT, source)
            shutil.copytree(whole, to) if os.path.isdir(whole) else shutil.copy2(whole, to)
        applied = subprocess.run(["patch", "-p1", "--batch", "--quiet", "--input", self.path], cwd=place, capture_output=True, text=True)
        if applied.returncode:
            raise SystemExit(f"broken {self.number}: {os.path.basename(self.path)} does not fit the source any more: renew it\n{applied.stdout}")

    def test(self, place, whole=False):
        """Runs the test that sees it, or with `whole` its program; returns whether it passed, and what it said."""
        where, name = self.facts["test"].rsplit(" ", 1)
        names = [] if whole else ["--exact", name]
        command = ["cargo", "test", "--quiet", *where.split(), "--", *names]
        environment = dict(os.environ, CARGO_TARGET_DIR=os.path.join(WORK, "build"))
        run = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        said = run.stdout + run.stderr
        if "test result: " not in said:
            raise SystemExit(f"broken {self.number}: the tests cannot be built:\n{said[-3000:]}")
        if run.returncode == 0 and not re.search(r"\b[1-9]\d* passed", said):
            raise SystemExit(f"broken {self.number}: there is no test {name}")
        return run.returncode == 0, said


def all_broken():
    return sorted((Broken(path) for path in glob.glob(os.path.join(PATCHES, "*.patch"))), key=lambda one: one.number)


def failure(said):
    """What a failed test said first."""
    lines = said.splitlines()
    start = next((n for n, line in enumerate(lines) if "panicked at" in line), 0)
    return "\n".join(line for line in lines[start:start + 5] if line.strip())


def check():
    """Applies each patch, sees the named test fail, and without any patch sees all of them pass."""
    wrong = 0
    place = os.path.join(WORK, "check")
    for one in all_broken():
        one.copy(place)
        passed, _ = one.test(place)
        print(f"broken {one.number} ({one.title}): {'NOT seen by' if passed else 'seen by'} {one.test_name()}", flush=True)
        wrong += passed
    # The last patch is taken off again, and so are all others: each copy was fresh.
    subprocess.run(["patch", "-p1", "-R", "--batch", "--quiet", "--input", one.path], cwd=place, check=True)
    for one in all_broken():
        passed, said = one.test(place)
        if not passed:
            wrong += 1
            print(f"broken {one.number}: {one.test_name()} fails without the patch, too\n{failure(said)}", flush=True)
    print(f"broken: {len(all_broken())} patches, {wrong} wrong")
    return 1 if wrong else 0


def begin(number):
    one = find(number)
    place = os.path.join(WORK, str(number))
    one.copy(place)
    _, said = one.test(place)
    shown = os.path.relpath(place)
    print(f"{one.title}\n\n{one.symptom}\n\nThe test that sees it says:\n\n{failure(said)}\n\nThink about: {one.look}\n")
    if "see" in one.facts:
        print(f"See it with the program:  cd {shown} && cargo run --quiet -- {one.facts['see']}")
    print(f"Find it in {shown}/src, mend it there, and have it judged: scripts/lesson broken {number} --judge")
    return 0


def judge(number):
    one = find(number)
    place = os.path.join(WORK, str(number))
    if not os.path.isdir(place):
        raise SystemExit(f"broken {number}: begin with scripts/lesson broken {number}")
    passed, said = one.test(place, whole=True)
    print("mended: all tests of that program pass" if passed else f"not yet:\n\n{failure(said)}")
    return 0 if passed else 1


def find(number):
    found = [one for one in all_broken() if one.number == number]
    if not found:
        raise SystemExit(f"there is no broken {number}: " + ", ".join(f"{one.number} {one.title}" for one in all_broken()))
    return found[0]
