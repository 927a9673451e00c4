package check

import "testing"

func FuzzParseIDRanges(f *testing.F) {
	f.Add("alice:100000:65536\nbob:4294967295:4294967295\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range parseIDRanges(text) {
			if r.last < r.first {
				t.Errorf("a range that ends before it begins: %+v", r)
			}
		}
	})
}
