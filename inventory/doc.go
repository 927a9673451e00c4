// Package inventory reads hosts, groups, images and guests, as they should exist,
// from fleet.yml files; hosts, groups and variables also from Ansible's inventories.
// It validates them, resolves them (ranges, groups, ${…} variables, one instance of a
// guest on each host that its pattern names) and selects among them.
//
// It is pure: files in, values out. It opens no connection, runs no program, reads
// no environment and keeps no state, so it leaves nothing behind when it is killed
// and needs no special kernel. It never asks what a host really has. Inventory
// programs are run by the caller's [Loader.Run].
//
// It is strict with files of its own, and with those of Ansible as far as Ansible
// is; what it leaves out or does not understand there is a warning. An unknown key, a name that nothing has, a pattern that matches
// nothing, an address or a port owned twice on a host are errors; all errors of
// all files are reported in one run, each an [*Error] with the file, line and
// column at fault and, where there is one, the nearest valid word.
//
// # Precedence
//
// A value that is given in several places is taken from the last of these: the top
// of a file or Ansible's group all; the host's groups; group_vars/all; group_vars of
// the groups; the host; host_vars. Groups count in the order of Ansible: parents
// before children (by their depth), then by ansible_group_priority, then by name.
// Within one of these the inventories count in the order of the command line. This
// applies to each key of ssh, each label and each variable by itself; an Ansible
// variable such as ansible_user counts as the key of ssh in its place.
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
