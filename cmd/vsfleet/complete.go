package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/inventory"
)

// completeHosts completes a pattern of hosts: the names of hosts and groups, also after
// operators.
func (a *app) completeHosts(cmd *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
	inv, err := a.completing(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := []string{"all"}
	for _, h := range inv.Hosts {
		names = append(names, h.Name)
	}
	for _, g := range inv.Groups {
		names = append(names, g.Name)
	}
	cut := strings.LastIndexAny(text, ":,&!") + 1
	return startingWith(text[:cut], names, text), cobra.ShellCompDirectiveNoFileComp
}

// completing returns the inventory whose names are completed. It reads the settings
// first, as prepare was not called.
func (a *app) completing(cmd *cobra.Command) (*inventory.Inventory, error) {
	if err := a.settings(cmd.Root().PersistentFlags()); err != nil {
		return nil, err
	}
	once := a.inventories[:0]
	for _, source := range a.inventories { // to complete, cobra reads the flags twice
		if !slices.Contains(once, source) {
			once = append(once, source)
		}
	}
	a.inventories = once
	return a.load(cmd.Context())
}

// completeGroup completes the name of a group.
func (a *app) completeGroup(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	inv, err := a.completing(cmd)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := []string{"all"}
	for _, g := range inv.Groups {
		names = append(names, g.Name)
	}
	return startingWith("", names, text), cobra.ShellCompDirectiveNoFileComp
}

// completeHost completes the name of a host.
func (a *app) completeHost(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	inv, err := a.completing(cmd)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, h := range inv.Hosts {
		names = append(names, h.Name)
	}
	return startingWith("", names, text), cobra.ShellCompDirectiveNoFileComp
}

// completeGuests completes HOST/GUEST.
func (a *app) completeGuests(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	inv, err := a.completing(cmd)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, h := range inv.Hosts {
		for _, g := range h.Guests {
			names = append(names, g.Name, h.Name+"/"+g.Name)
		}
	}
	return startingWith("", names, text), cobra.ShellCompDirectiveNoFileComp
}

// startingWith returns the completions of text: before, which was typed already, and a
// name.
func startingWith(before string, names []string, text string) []string {
	var list []string
	for _, name := range names {
		if strings.HasPrefix(before+name, text) {
			list = append(list, before+name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
