package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
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
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "vsfleet", Manual: "vsfleet"}, args[0])
		},
	}))
	return cmd
}
