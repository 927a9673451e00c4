// Package convert makes a first fleet.yml from an ssh_config, a known_hosts file, or
// Ansible inventories.
//
// It reads files and writes none. The result is a text that package inventory reads as
// the same hosts, groups and variables. Whatever cannot be expressed in it is listed in
// [Draft.Left], never dropped silently. It has no guests.
package convert
