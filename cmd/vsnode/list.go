package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/api"
)

// listGuests prints all guests, running or stopped; wanted, if not nil, reports whether a
// guest is to be printed.
func listGuests(ctx context.Context, h *node.Host, args []string, wanted func(name string) bool) error {
	fs := flag.NewFlagSet("list", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "")
	if err := flags(fs, args, 0, 0); err != nil {
		return err
	}
	if err := h.Guests.Clean(ctx); err != nil {
		return err
	}
	guests, err := h.Guests.States(ctx)
	if err != nil {
		return err
	}
	if wanted != nil {
		guests = slices.DeleteFunc(guests, func(g api.GuestState) bool { return !wanted(g.Name) })
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(guests)
	}
	images, err := h.Images.List(ctx)
	if err != nil {
		return err
	}
	name := map[string]string{}
	for _, i := range images {
		name[i.ID] = i.Spec.Name
	}
	drift, err := h.Guests.Drift(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{{"CTX", "NAME", "STATE", "PROC", "UPTIME", "NETWORK", "IMAGE", "ADDRESSES AND PORTS"}}
	for _, g := range guests {
		notes := drift[g.Name]
		if _, err := os.Lstat(h.Guests.Dir(g.Name) + "/disabled"); err == nil {
			notes = append([]string{"disabled"}, notes...)
		}
		rows = append(rows, listRow(g, notes, name[g.Image]))
	}
	return writeColumns(os.Stdout, rows)
}

// listRow returns a guest's row of the list, with what is wrong with it at its end.
func listRow(g api.GuestState, notes []string, image string) []string {
	up := ""
	if g.Status == api.Running && !g.Started.IsZero() {
		up = uptime(time.Since(g.Started))
	}
	if g.Runs != nil && g.Runs.Init.Style == "rescue" {
		notes = append(notes, "rescue")
	}
	if g.Ended != nil {
		notes = append(notes, g.Ended.String())
	}
	if g.Problem != "" {
		notes = append(notes, g.Problem)
	}
	if why := api.Refusing(g.Unread); len(why) > 0 {
		notes = append(notes, "does not start: "+strings.Join(api.Explain(why), "; "))
	}
	row := []string{
		strconv.Itoa(g.Context), g.Name, string(g.Status), strconv.Itoa(g.Processes), cmp.Or(up, "-"),
		string(g.Network.Mode), cmp.Or(image, "-"), g.Network.Summary(),
	}
	if len(notes) > 0 {
		last := &row[len(row)-1]
		*last = strings.TrimSpace(*last + " (" + strings.Join(notes, "; ") + ")")
	}
	return row
}

// writeColumns writes a table whose first row is its header.
func writeColumns(out io.Writer, rows [][]string) error {
	var b strings.Builder
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			row[i] = printable.Line(cell)
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += fmt.Sprintf("%-*s  ", width[i], cell)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}
