// Package report holds what came of a run as plain data: a [Run] with its
// [Host]s and their [Step]s when it has ended, and a stream of [Event]s while it
// is under way. All of it survives JSON and back. Progress, recaps and records
// are made of it, and of nothing else.
//
// It decides nothing and prints nothing: package view shows it. What of it goes
// to standard output in machine formats has types of its own, whose fields are an
// interface: they are added to, never changed.
package report
