# Runs ansible-inventory --list for many inventories, each in a process of its own
# that is forked from this one: Ansible's modules are imported once.
#
# Standard input: a list of {"dir": DIRECTORY, "sources": [INVENTORY, ...]} as JSON.
# Standard output: a list of {"status": N, "stdout": TEXT, "stderr": TEXT}.
import json
import os
import sys
import tempfile

from ansible.cli.inventory import InventoryCLI
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager


def child(case, out, err):
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.chdir(case["dir"])
    args = ["ansible-inventory", "--list"]
    for source in case["sources"]:
        args += ["-i", source]
    try:
        status = InventoryCLI(args).run() or 0
    except SystemExit as e:
        status = e.code or 0
    except BaseException as e:
        print(e, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


# This loads the plugins, too, once for all children.
loader = DataLoader()
hosts = InventoryManager(loader=loader, sources=["first,"])
VariableManager(loader=loader, inventory=hosts).get_vars(host=hosts.get_host("first"))

results = []
for case in json.load(sys.stdin):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            child(case, out, err)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
        results.append({"status": status, "stdout": texts[0], "stderr": texts[1]})
json.dump(results, sys.stdout)
