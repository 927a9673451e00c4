// Package ansible reads Ansible's formats: inventories in YAML, in INI and in the JSON
// of inventory programs, files of variables, and arguments of ssh.
//
// It is pure: bytes in, values out. It opens no file, runs no program and evaluates no
// template, and it resolves nothing: package inventory merges the sources and decides
// which group's variable a host gets.
//
// It reads what Ansible reads, and reports the rest with line and column: a
// [Problem] that is a warning where Ansible goes on, an error where Ansible refuses
// the file or where going on would be a guess. Nothing is left out silently.
package ansible
