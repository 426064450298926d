package profiles

import (
	"fmt"
	"strings"
	"sync"
)

// Prior is what published measurements say about devices of a class and a type
// in general: the law that a device without measurements of its own gets.
type Prior struct {
	Class string `yaml:"class"`
	Type  string `yaml:"type"`
	Law   Law    `yaml:"law"`
}

// priorTable is the file priors.yaml.
type priorTable struct {
	Name   string  `yaml:"name"`
	Common Law     `yaml:"common"` // for every class where the prior says nothing
	Priors []Prior `yaml:"priors"`
}

func (t *priorTable) title() string { return t.Name }

func (t *priorTable) check(c *checker) {
	key := func(p Prior) string { return p.Class + "/" + p.Type }
	for i, p := range t.Priors {
		if i > 0 && key(t.Priors[i-1]) >= key(p) {
			c.add(fmt.Sprintf("$.priors[%d].class", i), "priors must be sorted by class and type, and unique")
		}
	}
}

// PriorOf is the law of a class and a type of device, with the numbers common
// to all classes filled in; ok is false if nothing is known of the class.
func PriorOf(class, kind string) (law Law, ok bool, err error) {
	t, err := readPriors()
	if err != nil {
		return Law{}, false, err
	}
	for _, p := range t.Priors {
		if p.Class == class && p.Type == kind {
			law, ok = p.Law, true
		}
	}
	law.fill(t.Common)
	return law, ok, nil
}

// readPriors is read once: every device sheet needs it. Nobody changes it; fill
// copies its numbers.
var readPriors = sync.OnceValues(func() (*priorTable, error) {
	t := &priorTable{}
	data, err := builtin.ReadFile("priors.yaml")
	if err != nil {
		return nil, err
	}
	return t, decode("builtin/priors.yaml", data, t)
})

// resolve fills what the device's law leaves out from the prior of its class
// and type, and then from the common one.
func (d *DeviceSheet) resolve() error {
	law, found, err := PriorOf(d.Class, d.Type)
	if err != nil {
		return err
	}
	d.Law.fill(law)
	if !found && !d.Law.own() {
		t, err := readPriors()
		if err != nil {
			return err
		}
		var have []string
		for _, p := range t.Priors {
			have = append(have, p.Class+"/"+p.Type)
		}
		return fmt.Errorf("device profile %q: no prior for class %q and type %q: give law.efficiency, pass_overhead and mfu, or use one of %s",
			d.Name, d.Class, d.Type, strings.Join(have, ", "))
	}
	if d.Law.MFUPeak == "int8" && d.PeakInt8 == nil {
		return fmt.Errorf("device profile %q: the prior of %s/%s counts int8 operations but peak_int8 is missing: give it", d.Name, d.Class, d.Type)
	}
	return nil
}

// own reports whether the law says what no common prior can.
func (l *Law) own() bool { return l.Efficiency != nil && l.PassOverhead != nil && l.MFU != nil }

func (l *Law) fill(from Law) {
	for _, f := range []struct {
		dst **Quantity
		src *Quantity
	}{
		{&l.Efficiency, from.Efficiency}, {&l.KVEfficiency, from.KVEfficiency},
		{&l.PassOverhead, from.PassOverhead}, {&l.FixedShare, from.FixedShare},
		{&l.LayerOverhead, from.LayerOverhead}, {&l.MFU, from.MFU}, {&l.Encode, from.Encode},
	} {
		if *f.dst == nil && f.src != nil {
			q := *f.src
			*f.dst = &q
		}
	}
	if l.MFUPeak == "" {
		l.MFUPeak = from.MFUPeak
	}
}
