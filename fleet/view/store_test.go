package view

import (
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

func TestTablesOfStores(t *testing.T) {
	id := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	ok, lost := report.Result{Status: outcome.OK}, report.Result{Status: outcome.Unreachable, Error: "no route to host"}
	var b strings.Builder
	err := CollectTable(&b, []report.CollectRecord{
		{Host: "lab1", Collected: api.Collected{Images: []api.Image{{ID: id, Spec: api.ImageSpec{Name: "base"}}}, Objects: 12, Bytes: 3 << 20}, Result: ok},
		{Host: "lab2", Collected: api.Collected{Notes: []string{"a tree was changed"}}, Result: ok},
		{Host: "lab3", Result: lost},
	})
	const removed = "HOST  IMAGES             OBJECTS  SIZE  NOTES\n" +
		"lab1  base 0123456789ab       12    3M\n" +
		"lab2                           0     0  a tree was changed\n"
	if err != nil || b.String() != removed {
		t.Errorf("%v\n%swant\n%s", err, b.String(), removed)
	}
	b.Reset()
	err = StoreTable(&b, []report.StoreRecord{
		{Host: "lab1", StoreCheck: api.StoreCheck{Images: 2, Objects: 7000}, Result: ok},
		{Host: "lab2", StoreCheck: api.StoreCheck{Images: 1, Objects: 9, Damaged: []api.Damage{{What: "object 00 is damaged", Images: []string{id, id}, Users: []string{"mail", "www"}}}}, Result: ok},
		{Host: "lab3", Result: lost},
	})
	const found = "HOST  IMAGES  OBJECTS  DAMAGE                OF IMAGES                   USED BY\n" +
		"lab1       2     7000  none\n" +
		"lab2       1        9  object 00 is damaged  0123456789ab, 0123456789ab  mail, www\n"
	if err != nil || b.String() != found {
		t.Errorf("%v\n%swant\n%s", err, b.String(), found)
	}
}
