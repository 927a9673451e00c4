// Package ansible reads what Ansible keeps in files: inventories in YAML, in INI
// and as inventory programs print them, files of variables, and arguments of ssh.
//
// It is pure: bytes in, values out. It opens no file, runs no program and evaluates
// no template, and it does not resolve anything: which group's variable a host has
// is the business of package inventory, which merges what several sources say.
//
// It reads what Ansible reads, and reports the rest with line and column: a
// [Problem] that is a warning where Ansible goes on, an error where Ansible refuses
// the file or where going on would be a guess. Nothing is left out silently.
package ansible
