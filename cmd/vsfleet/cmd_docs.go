package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// docsCommand generates the man pages, for packagers.
func (a *app) docsCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "docs", Short: "Generate documentation from the commands", Hidden: true})
	cmd.AddCommand(noData(&cobra.Command{
		Use:   "man DIR",
		Short: "Write a man page for each command",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // it is a date: equal commands make equal pages
			escapeMarkdown(root, map[*pflag.Flag]bool{})
			return manTree(root, args[0])
		},
	}))
	return cmd
}

// manTree writes the man pages of a command and those below it.
func manTree(cmd *cobra.Command, dir string) error {
	for _, below := range cmd.Commands() {
		if below.IsAvailableCommand() && !below.IsAdditionalHelpTopicCommand() {
			if err := manTree(below, dir); err != nil {
				return err
			}
		}
	}
	var page bytes.Buffer
	if err := doc.GenMan(cmd, &doc.GenManHeader{Section: "1", Source: "vsfleet", Manual: "vsfleet"}, &page); err != nil {
		return err
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
	return os.WriteFile(filepath.Join(dir, name), zeroDefaults.ReplaceAll(page.Bytes(), []byte("$1")), 0o644)
}

// zeroDefaults are the defaults of flags that say nothing: the text has what counts then.
var zeroDefaults = regexp.MustCompile(`(?m)^(.*\\fB--[a-z-]+\\fP)(?:=""|=\[\]|=0s?|\[=(?:false|0)\])$`)

// escapeMarkdown escapes what package doc would take for Markdown in the texts of a command
// and those below it: web*/www.
func escapeMarkdown(cmd *cobra.Command, seen map[*pflag.Flag]bool) {
	escape := strings.NewReplacer(`*`, `\*`, `<`, `\<`)
	cmd.Short = escape.Replace(cmd.Short)
	lines := strings.Split(cmd.Long, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "    ") && !strings.HasPrefix(line, "\t") { // those are code
			lines[i] = escape.Replace(line)
		}
	}
	cmd.Long = strings.Join(lines, "\n")
	for _, flags := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
		flags.VisitAll(func(f *pflag.Flag) {
			if !seen[f] {
				seen[f] = true
				f.Usage = escape.Replace(f.Usage)
			}
		})
	}
	for _, below := range cmd.Commands() {
		escapeMarkdown(below, seen)
	}
}
