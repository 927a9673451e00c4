package inventory

import (
	"maps"
	"slices"
)

// Secrets returns the values that must not be shown or kept anywhere: the contents of
// secret files.
func (inv *Inventory) Secrets() []string {
	var list []string
	seen := map[string]bool{"": true}
	add := func(files []File) {
		for _, f := range files {
			if text := string(f.Content); f.Secret && !seen[text] {
				seen[text] = true
				list = append(list, text)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(inv.images)) {
		add(inv.images[name].Files)
	}
	for _, h := range inv.Hosts {
		for _, g := range h.Guests {
			add(g.Files)
		}
	}
	return list
}
