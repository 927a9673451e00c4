package inventory

import (
	"reflect"
	"testing"

	"github.com/vsfleet/vsfleet/internal/setting"
)

func TestWhenGuestsStartByThemselves(t *testing.T) {
	for _, row := range []struct{ what, keys, mark string }{
		{"true", "autostart: true", "default"},
		{"false", "autostart: false", ""},
		{"nothing", "", ""},
		{"a mark", "autostart: night", "night"},
	} {
		t.Run(row.what, func(t *testing.T) {
			inv, err := load(t, base+"  web: {on: h1, image: deb, network: {mode: nat}, "+row.keys+"}\n")
			if err != nil {
				t.Fatal(err)
			}
			if got := inv.Hosts[0].Guests[0].Boot; !reflect.DeepEqual(got, setting.Boot{Mark: row.mark}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}
