// Package report holds what came of a run as plain data: everything in it
// survives JSON and back, and what is printed in machine formats is made of it.
//
// It decides nothing and prints nothing: package view shows it.
package report
