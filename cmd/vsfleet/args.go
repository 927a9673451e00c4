package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nearest"
)

// hostCommands take no arguments and work on the hosts of --limit: their first argument
// is likely to be meant as a host.
var hostCommands = []string{
	"ping", "check", "plan", "drift", "stat", "install", "trust", "image list", "inventory list",
}

// explainArgs makes errors about the number of arguments name the wanted ones, for cmd
// and all commands below it.
func explainArgs(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		explainArgs(sub)
	}
	valid := cmd.Args
	if valid == nil || cmd.HasSubCommands() {
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := valid(cmd, args)
		var known *usageError
		if err == nil || errors.As(err, &known) {
			return err
		}
		return argsError(cmd, args)
	}
}

func argsError(cmd *cobra.Command, args []string) error {
	name := commandName(cmd)
	_, wants, _ := strings.Cut(cmd.Use, " ")
	wants = strings.TrimPrefix(wants, "[flags] ")
	have := "nothing"
	if len(args) > 0 {
		have = fmt.Sprintf("%q", args)
	}
	hint := usage("see %s --help", cmd.CommandPath())
	switch {
	case wants != "":
		return hint(fmt.Errorf("%s: want %s, have %s", name, wants, strings.Trim(have, "[]")))
	case slices.Contains(hostCommands, name):
		hint = usage("if hosts are meant: vsfleet %s -l %s", name, view.CommandLine([]string{strings.Join(args, ",")}))
	}
	return hint(fmt.Errorf("%s takes no arguments, have %s", name, strings.Trim(have, "[]")))
}

// commandName returns the words of a command after "vsfleet".
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), "vsfleet ")
}

// refuseWords makes "help" and "completion" refuse words that name no command.
func refuseWords(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			group(cmd)
		case "help":
			cmd.Args = func(cmd *cobra.Command, args []string) error {
				if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
					return usage("vsfleet --help lists the commands")(fmt.Errorf("help: there is no command %q", strings.Join(args, " ")))
				}
				return nil
			}
		}
	}
}

// flagError adds the flag that may have been meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1 {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if name := nearest.Word(unknown.GetSpecifiedName(), names); name != "" {
			return usage("did you mean --%s? See %s --help", name, cmd.CommandPath())(err)
		}
	}
	return usage("see %s --help", cmd.CommandPath())(err)
}

// commandWords checks the arguments of a command that runs a command, which begins after
// the first patterns arguments. Without "--", a flag of vsfleet among the words of the
// command may be a mistake that changes where the command runs: what selects hosts, and
// long flags, are refused.
func commandWords(patterns int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.MinimumNArgs(patterns+1)(cmd, args); err != nil || cmd.ArgsLenAtDash() >= 0 {
			return err
		}
		for i, word := range args[patterns:] {
			switch {
			case word == "--":
				return nil
			case i == 0 && strings.HasPrefix(word, "-") || ownFlag(cmd.Flags(), word):
				given := slices.Concat(args[:patterns], []string{"--"}, args[patterns:])
				return usage("put it before the command, or write -- before the command to pass it on: vsfleet %s %s",
					commandName(cmd), view.CommandLine(given))(
					fmt.Errorf("%s after %s: it could be a flag of vsfleet or of the command", word, view.CommandLine(args[:patterns+i])))
			}
		}
		return nil
	}
}

// ownFlag reports whether a word would be a long flag of vsfleet, or one that selects
// hosts: -l, -lweb, -bl.
func ownFlag(flags *pflag.FlagSet, word string) bool {
	if long, ok := strings.CutPrefix(word, "--"); ok {
		name, _, _ := strings.Cut(long, "=")
		return name != "help" && flags.Lookup(name) != nil
	}
	letters, ok := strings.CutPrefix(word, "-")
	if !ok {
		return false
	}
	for i := range len(letters) {
		switch f := flags.ShorthandLookup(letters[i : i+1]); {
		case f == nil:
			return false
		case f.Name == "limit", f.Name == "inventory":
			return true
		case f.NoOptDefVal == "": // the rest is its value
			return false
		}
	}
	return false
}

// counted is a text that counts how often it is set.
type counted struct {
	text  *string
	times *int
}

func (c counted) String() string {
	if c.text == nil { // pflag compares with the zero value
		return ""
	}
	return *c.text
}

func (c counted) Set(text string) error {
	*c.text = text
	*c.times++
	return nil
}

func (c counted) Type() string { return "string" }

// notEmpty returns an error if a flag that all commands have is an empty text: a variable
// that is not set is not the inventory's value.
func notEmpty(cmd *cobra.Command) (err error) {
	all := cmd.Root().PersistentFlags()
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if err == nil && f.Value.String() == "" && all.Lookup(f.Name) != nil {
			err = usage("leave it out for the default")(fmt.Errorf("--%s is empty", f.Name))
		}
	})
	return err
}
