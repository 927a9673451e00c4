// Package view is everything that a person or a program reads on the
// controller: tables, machine formats, plans, progress, recaps. The rules that
// all of it keeps stand at the top of terminal.go.
//
// It shows what package report holds: runs, events and records. It decides nothing
// and asks nobody: no rollout, no connection. It keeps no state but that of a status
// line, which is gone when [Progress.Close] returns; killed before, the terminal
// keeps one line of text and is otherwise as it was.
package view
