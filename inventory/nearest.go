package inventory

import (
	"fmt"
	"maps"
	"slices"

	"github.com/vsfleet/vsfleet/internal/nearest"
)

// didYouMean returns the hint for a word that is not among the known ones, or "".
func didYouMean(word string, known []string) string {
	if near := nearest.Word(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
