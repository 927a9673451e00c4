package inventory

import (
	"strings"
	"testing"
)

func TestHowAnImageIsUpdated(t *testing.T) {
	for _, row := range []struct{ what, image, want, err string }{
		{"without a word", "{method: debootstrap, args: [-d, bookworm]}", "", ""},
		{"build", "{method: debootstrap, args: [-d, bookworm], update: build}", UpdateBuild, ""},
		{"packages", "{method: debootstrap, args: [-d, bookworm], update: packages}", UpdatePackages, ""},
		{"another word", "{method: debootstrap, args: [-d, bookworm], update: package}", "", `update: there is no "package", want build or packages (did you mean "packages"?)`},
		{"packages of another method", "{method: template, args: [-t, /x.tar], update: packages}", "", `update: packages upgrades by apt what debootstrap made; image "i" is made by template (leave it at build)`},
	} {
		t.Run(row.what, func(t *testing.T) {
			inv, err := load(t, "hosts: {h: {}}\nimages:\n  i: "+row.image+"\n")
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("%v, want %s", err, row.err)
				}
				return
			}
			if err != nil || inv.Images[0].Update != row.want {
				t.Errorf("%v, %q", err, inv.Images[0].Update)
			}
		})
	}
}
