// Package setting knows what can be set of a guest. [Guest] holds the values;
// [Table] has one [Row] per setting: its key in the inventory, its file on the
// host, how it is read, written, compared and shown, whether a running guest
// takes it, and what the documentation says of it. Inventory, plan and host go
// through the table, so that a new setting is a field, a row, and what the host
// does with it.
//
// No rows are a guest's name, context and image, which say which guest it is,
// and its files and state, which the host keeps elsewhere.
//
// Values only: it opens nothing and keeps nothing. The host reads and writes its
// files through [Tree] and [Row.Content].
package setting
