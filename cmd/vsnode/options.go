package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/nearest"
)

// refusal is an option or a command of util-vserver that there is not, and why.
type refusal map[string]string

// parse parses options, and words mistakes as GNU's programs do.
func parse(fs *flag.FlagSet, args []string, refused refusal) error {
	fs.SetOutput(io.Discard)
	err := fs.Parse(args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return errors.New(explainFlag(fs, err.Error(), refused))
}

// The errors of package flag, which have no types.
var (
	undefinedFlag = regexp.MustCompile(`^flag provided but not defined: -(.*)$`)
	noArgument    = regexp.MustCompile(`^flag needs an argument: -(.*)$`)
	badValue      = regexp.MustCompile(`^invalid value "(.*)" for flag -(.*): `)
	badBool       = regexp.MustCompile(`^invalid boolean value "(.*)" for -(.*): `)
	badSyntax     = regexp.MustCompile(`^bad flag syntax: (.*)$`)
)

func explainFlag(fs *flag.FlagSet, text string, refused refusal) string {
	if m := undefinedFlag.FindStringSubmatch(text); m != nil {
		name := strings.TrimLeft(m[1], "-")
		if why := refused[name]; why != "" {
			return fmt.Sprintf("option %s: %s", dashed(name), why)
		}
		var known []string
		fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
		if near := nearest.Word(name, known); near != "" {
			return fmt.Sprintf("unknown option %s; did you mean %s?", dashed(name), dashed(near))
		}
		return "unknown option " + dashed(name)
	}
	if m := noArgument.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("option %s needs an argument", dashed(m[1]))
	}
	if m := badBool.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("option %s takes no argument", dashed(m[2]))
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("option %s: want a number, not %q", dashed(m[2]), m[1])
	}
	if m := badSyntax.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("%q is not an option", m[1])
	}
	return text
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// didYouMean is the end of a message about a word that is not known.
func didYouMean(word string, known []string) string {
	if near := nearest.Word(word, known); near != "" && !slices.Contains(known, word) {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}
