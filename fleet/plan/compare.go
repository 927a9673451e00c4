package plan

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// difference is one setting that a guest has otherwise than it should.
type difference struct {
	setting    string // as plans name it: "ports"
	have, want string // "80/tcp", "80/tcp, 443/tcp"
	restart    bool   // a running guest has it only after a restart; else at once
	stop       bool   // it cannot be changed while the guest runs
}

// text returns the difference in words: "ports 80/tcp → 80/tcp, 443/tcp".
func (d difference) text() string {
	return fmt.Sprintf("%s %s → %s", d.setting, cmp.Or(d.have, "none"), cmp.Or(d.want, "none"))
}

// differences compares a guest as it should be with what its host has. Both
// are brought to one form first: a host may leave out what is the default. was
// and is are what people call their images; controllers are the host's.
func differences(want, have api.Guest, was, is string, controllers []string) []difference {
	var list []difference
	if (want.Image != have.Image || want.Image == "") && was != is {
		list = append(list, difference{setting: "image", have: was, want: is, restart: true})
	}
	if want.Context != have.Context {
		list = append(list, difference{
			setting: "context", have: strconv.Itoa(have.Context), want: strconv.Itoa(want.Context), restart: true, stop: true,
		})
	}
	for _, row := range setting.Table {
		if !row.Same(&have, &want) {
			list = append(list, difference{
				setting: row.Plan, have: row.Text(&have), want: row.Text(&want), restart: !row.AtOnce(&have, &want, controllers),
			})
		}
	}
	return list
}
