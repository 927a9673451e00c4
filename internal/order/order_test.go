package order

import (
	"cmp"
	"slices"
	"testing"
)

// TestFuncSortsAsSlicesDoes: and Stable, by the tens, keeps the order of the ones.
func TestFuncSortsAsSlicesDoes(t *testing.T) {
	for _, s := range [][]int{nil, {1}, {3, 1, 2}, {5, 5, 4, 9, -1, 5}} {
		want := slices.Clone(s)
		slices.SortFunc(want, cmp.Compare[int])
		if Func(s, cmp.Compare[int]); !slices.Equal(s, want) {
			t.Errorf("got %v, want %v", s, want)
		}
	}
	tens := func(a, b int) int { return cmp.Compare(a/10, b/10) }
	s := []int{31, 12, 33, 14, 25, 36, 17, 28, 39, 10, 21, 32, 13, 24, 35}
	want := slices.Clone(s)
	slices.SortStableFunc(want, tens)
	if Stable(s, tens); !slices.Equal(s, want) {
		t.Errorf("got %v, want %v", s, want)
	}
}
