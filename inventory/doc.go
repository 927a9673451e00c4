// Package inventory reads the hosts, groups, images and guests that should exist from
// fleet.yml files, and hosts, groups and variables also from Ansible inventories. It
// validates them, resolves them (ranges, groups, ${…} variables, one instance of a
// guest on each host that its pattern names) and selects among them.
//
// It is pure: files in, values out. It opens no connection, runs no program, reads
// no environment and keeps no state, so it leaves nothing behind when it is killed
// and needs no special kernel. It never asks what a host really has. Inventory
// programs are run by the caller's [Loader.Run].
//
// It is strict with its own files, and as strict as Ansible with Ansible's; it warns
// about anything that it leaves out or does not understand there. An unknown key, a
// name that does not exist, a pattern that matches nothing, and an address or a port
// owned twice on a host are errors. All errors in all files are reported at once, each
// an [*Error] with the file, line and column at fault and, if there is one, the nearest
// valid word.
//
// # Precedence
//
// If a value is given in several places, the last of these wins: the top of a file or
// Ansible's group all; the host's groups; group_vars/all; group_vars of the groups; the
// host; host_vars. Groups are in Ansible's order: parents before children (by depth),
// then by ansible_group_priority, then by name. Within one place, a later inventory of
// the command line wins. This applies to each key of ssh, each label and each variable
// by itself. An Ansible variable such as ansible_user counts as the key of ssh in its
// place.
//
// # Variables
//
// Every text of a guest except its name, its pattern and its network mode may
// hold ${host.name}, ${host.address}, ${host.labels.X}, ${vars.X} and
// ${guest.name}; a host's address and its SSH settings may hold all but
// ${host.address} and ${guest.name}. ${vars.X:-DEFAULT} and ${host.labels.X:-DEFAULT}
// have a default. "$${" stands for "${" itself. Values of variables are not expanded
// again, and the result is bounded.
package inventory
