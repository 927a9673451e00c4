// Package convert writes a first fleet.yml from what people have: an ssh_config, a
// known_hosts file, or inventories of Ansible.
//
// It reads files and writes none. What it makes is a text that package inventory
// reads, with the same hosts, groups and variables; what has no place in it is named
// in [Draft.Left], never dropped silently. It decides nothing about guests.
package convert
