package main

import (
	"os"
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
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "vsfleet", Manual: "vsfleet"}, args[0])
		},
	}))
	return cmd
}

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
