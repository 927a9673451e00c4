// Package playbooks reads playbooks: ordered plays on hosts, each with its steps,
// variables and strategy. It also contains the playbooks that ship with vsfleet.
//
// It is pure: bytes in, values out. It opens no connection, runs no program and keeps
// no state; files come from a function of the caller. Package fleet/play carries the
// steps out.
//
// It is as strict as package inventory. An unknown key, step, variable, handler, label
// or guest, and a condition that is not a boolean are errors. All errors in all files
// are reported at once, each with its file, line and column and, if there is one, the
// nearest valid word.
//
// # Steps
//
// [Kinds] is the table of steps. Reading, the JSON Schema and the reference in
// docs/playbooks.md are made from it.
//
// # Conditions and texts
//
// A condition (when, until, changed_when, failed_when, assert) is an expression of
// github.com/expr-lang/expr, compiled when the playbook is read, in an environment
// whose names and types are known: [Expr]. A text may hold ${NAME} and
// ${NAME:-DEFAULT}, as texts of an inventory: [Text].
package playbooks
