package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/nearest"
)

// parse parses options, and words mistakes as GNU's programs do. Of is the verb whose
// refused options are told.
func parse(fs *flag.FlagSet, args []string, of string) error {
	fs.SetOutput(io.Discard)
	err := fs.Parse(args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return errors.New(explainFlag(fs, err.Error(), of))
}

// explainFlag words an error of package flag, whose errors have no types.
func explainFlag(fs *flag.FlagSet, text, of string) string {
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		name = strings.TrimLeft(name, "-")
		if why := refusal(of, dashed(name)); why != "" {
			return fmt.Sprintf("option %s: %s", dashed(name), why)
		}
		var known []string
		fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
		if near := nearest.Word(name, known); near != "" && len(name) > 1 {
			return fmt.Sprintf("unknown option %s; did you mean %s?", dashed(name), dashed(near))
		}
		return "unknown option " + dashed(name)
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return fmt.Sprintf("option %s needs an argument", dashed(name))
	}
	if _, name, _, ok := badValue(text, "invalid boolean value ", " for -"); ok {
		return fmt.Sprintf("option %s takes no argument", dashed(name))
	}
	if value, name, why, ok := badValue(text, "invalid value ", " for flag -"); ok {
		if why != "parse error" && why != "value out of range" { // of an option that checks itself
			return fmt.Sprintf("option %s: %s", dashed(name), why)
		}
		return fmt.Sprintf("option %s: want a number, not %q", dashed(name), value)
	}
	if word, ok := strings.CutPrefix(text, "bad flag syntax: "); ok {
		return fmt.Sprintf("%q is not an option", word)
	}
	return text
}

// badValue takes a text apart that says which value an option had, and why that is wrong.
func badValue(text, before, between string) (value, name, why string, ok bool) {
	rest, ok := strings.CutPrefix(text, before)
	if !ok {
		return "", "", "", false
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return "", "", "", false
	}
	rest, ok = strings.CutPrefix(rest[len(quoted):], between)
	name, why, _ = strings.Cut(rest, ": ")
	value, err = strconv.Unquote(quoted)
	return value, name, why, ok && err == nil
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
