// Package nearest finds the known word that was meant by a mistyped one.
package nearest

import "strings"

// Word returns the known word that is nearest to word, or "" if none is near
// enough: one typing mistake in three letters.
func Word(word string, known []string) string {
	best, found := (len(word)+2)/3+1, ""
	lower := strings.ToLower(word)
	for _, k := range known {
		if d := len(k) - len(word); d >= best || -d >= best {
			continue
		}
		if d := distance(lower, strings.ToLower(k)); d < best {
			best, found = d, k
		}
	}
	return found
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to make b of a (Damerau's, without editing a swapped pair again).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
