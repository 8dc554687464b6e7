"""What was committed survives 200 kills at random points of first builds, later ones, adding, removing, compacting."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_two_hundred_kills():
    script = Path(__file__).with_name("faults.py")
    done = subprocess.run([sys.executable, script, "--kills", "200"], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 200
    assert {name.split(",")[0] for name in found["by"]} == {"create", "build", "add", "remove", "compact"}
