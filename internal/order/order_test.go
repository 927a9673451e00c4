package order

import (
	"cmp"
	"slices"
	"testing"
)

func TestFuncSortsAsSlicesDoes(t *testing.T) {
	for _, s := range [][]int{nil, {1}, {3, 1, 2}, {5, 5, 4, 9, -1, 5}} {
		want := slices.Clone(s)
		slices.SortFunc(want, cmp.Compare[int])
		if Func(s, cmp.Compare[int]); !slices.Equal(s, want) {
			t.Errorf("got %v, want %v", s, want)
		}
	}
}
