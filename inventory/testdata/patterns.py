# Prints the hosts that Ansible finds for patterns, as JSON: an inventory is the first
# argument, patterns are the others.
import json
import sys

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

hosts = InventoryManager(loader=DataLoader(), sources=[sys.argv[1]])
json.dump([[h.name for h in hosts.get_hosts(p)] for p in sys.argv[2:]], sys.stdout)
