package api

import "testing"

// TestKeyIsFrozen holds what images are found by to what it was: with another
// key, hosts would build again what they have.
func TestKeyIsFrozen(t *testing.T) {
	for _, row := range []struct {
		name string
		spec ImageSpec
		want string
	}{
		{"a bare image", ImageSpec{Name: "any", Method: "debootstrap", Args: []string{"-d", "bookworm"}}, "c8b742c0eba3313b92d475625685dff1e8a571c32950aed8ebffee26b928372e"},
		{"an image with packages", ImageSpec{Name: "any", Method: "debootstrap", Args: []string{"-d", "bookworm"}, Packages: []string{"nginx-light"}},
			"ec3214070ce4c067c1223103d08c4ae0a4045b138c2457d2c83e3eecc644ebbd"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := row.spec.Key(); got != row.want {
				t.Errorf("key %s, want %s", got, row.want)
			}
		})
	}
}
