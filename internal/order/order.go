// Package order sorts slices in few bytes of code.
package order

import "sort"

// Func sorts as slices.SortFunc does, which puts 10 KB of code into vsnode for each type
// of elements that are values: all of them share this one's. Elements that are pointers
// or strings share one slices.SortFunc already.
func Func[T any](s []T, compare func(a, b T) int) {
	sort.Slice(s, func(i, j int) bool { return compare(s[i], s[j]) < 0 })
}

// Stable is Func that keeps the order of equal elements, as slices.SortStableFunc does.
func Stable[T any](s []T, compare func(a, b T) int) {
	sort.SliceStable(s, func(i, j int) bool { return compare(s[i], s[j]) < 0 })
}
