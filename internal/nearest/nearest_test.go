package nearest

import "testing"

func TestWord(t *testing.T) {
	known := []string{"address", "become", "labels", "web01", "web02", "on"}
	for word, want := range map[string]string{
		"adress": "address", "addresss": "address", "Address": "address", "label": "labels", "becmoe": "become",
		"wbe01": "web01", "web03": "web01", "no": "on", "o": "on", "x": "", "zzz": "", "network": "", "": "",
	} {
		if got := Word(word, known); got != want {
			t.Errorf("Word(%q) = %q, want %q", word, got, want)
		}
	}
}
