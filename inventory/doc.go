// Package inventory reads what should exist: hosts, groups, images and guests,
// from fleet.yml files. It validates them, resolves them (ranges, groups,
// ${…} variables, one instance of a guest on each host that its pattern names)
// and selects among them.
//
// It is pure: files in, values out. It opens no connection, runs no program,
// reads no environment and keeps no state, so there is nothing to guarantee
// when it is killed and no kernel that it needs. What a host really has is not
// its business.
//
// It is strict. An unknown key, a name that nothing has, a pattern that matches
// nothing, an address or a port owned twice on a host are errors; all errors of
// all files are reported in one run, each an [*Error] with the file, line and
// column at fault and, where there is one, the nearest valid word.
//
// # Precedence
//
// What is said in several places is taken from the closest: the top of a file,
// then the host's groups (parents before children, at equal depth by name, the
// later one winning, as Ansible does), then the host. This holds for each key
// of ssh, each label and each variable by itself.
//
// # Variables
//
// Every text of a guest but its name, its pattern and its network mode may
// hold ${host.name}, ${host.address}, ${host.labels.X}, ${vars.X} and
// ${guest.name}; a host's address may hold all but ${host.address} and
// ${guest.name}. "$${" stands for "${" itself. What a variable's value holds is
// not expanded again.
package inventory
