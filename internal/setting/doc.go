// Package setting describes the settings of a guest. [Guest] holds their values.
// [Table] has one [Row] per setting: its key in the inventory, its file on the
// host, how it is read, written, compared and printed, whether a running guest
// takes a change, and its documentation. Inventory, plan and host go through the
// table.
//
// A guest's name, context and image are not settings: they identify it. Neither are
// its files and its state, which the host keeps elsewhere.
//
// The package holds values only: it opens nothing and keeps nothing. A host passes
// its files in as a [Tree] and writes what [Row.Content] returns.
//
// # Adding a setting
//
//   - a field of Guest, and one of Record, in guest.go
//   - a row of Table in table.go, and one of the test in table_test.go
//   - go test ./internal/setting -update writes the documentation, and
//     go test ./node/guest -run TestEveryFileIsDocumented -update that of the file
//   - what the host does with it. A file of the cgroup ("cgroup/memory.high") needs
//     nothing more: starts write it, running guests get changes, drift is repaired
package setting
