package view

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/report"
)

func TestImageSpreadTable(t *testing.T) {
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprintf("host-%c-of-the-site", 'a'+i))
	}
	records := []report.ImageSpread{
		{Name: "base", Version: 3, IDs: []string{"sha256:1111111111111111"}, Hosts: 500, Have: make([]string, 463), Guests: 974, Current: 958,
			Others: []report.OtherImage{{Version: 2, Hosts: []string{"web1", "web2", "web3"}}, {ID: "sha256:2222222222222222", Hosts: []string{"db7"}}},
			Lack:   many, Unknown: []string{"db3"}},
		{Name: "box", IDs: []string{"sha256:1", "sha256:2"}, Hosts: 500},
	}
	want := `IMAGE   ID              HOSTS   GUESTS  OTHER VERSIONS                   LACK IT                                                                   NOT KNOWN
base@3  111111111111  463/500  958/974  web[1-3]: @2; db7: 222222222222  host-a-of-the-site, host-b-of-the-site, host-c-of-the-site, … (30 hosts)  db3
box     2 of them       0/500      0/0
`
	var b strings.Builder
	if err := ImageSpreadTable(&b, records); err != nil || b.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, b.String(), want)
	}
}
