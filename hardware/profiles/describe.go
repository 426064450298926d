package profiles

import (
	"fmt"
	"reflect"
	"strings"

	"meibench/hardware"
)

// Row is one line of a profile's description.
type Row struct {
	Field  string  // YAML path: power.idle, up.rate.p50, ...
	Value  float64 // in Unit
	Unit   string
	Kind   Kind
	Source string
}

// Describe lists every number of a built-in device, link, model or site with
// its source, in the order of the schema. A device's rows include its prior; a
// model's its weight format. Sites have rows only for distances.
func Describe(name string) ([]Row, error) {
	shape, _ := split(name)
	for _, k := range []struct {
		names []string
		open  func() (any, error)
	}{
		{Devices(), func() (any, error) { return Device(name) }},
		{Links(), func() (any, error) { return Link(name) }},
		{Models(), func() (any, error) { return modelSheet(name) }},
		{Sites(), func() (any, error) { return Site(name) }},
	} {
		for _, n := range k.names {
			if n == shape {
				sheet, err := k.open()
				if err != nil {
					return nil, err
				}
				return Rows(sheet), nil
			}
		}
	}
	var all []string
	for _, names := range [][]string{Devices(), Links(), Models(), Sites()} {
		all = append(all, names...)
	}
	return nil, unknown("profile", name, all)
}

// modelSheet is a model's shape together with the weight format of its name.
func modelSheet(name string) (any, error) {
	shape, format := split(name)
	s := &ModelSheet{}
	if err := open("model", "models", shape, s); err != nil {
		return nil, err
	}
	f, err := s.format(format)
	return &struct {
		Shape  *ModelSheet `yaml:"shape"`
		Format Format      `yaml:"format"`
	}{s, f}, err
}

// Rows lists every number of a sheet (a pointer to a DeviceSheet, LinkSheet,
// ModelSheet or SiteSheet) in the order of its schema.
func Rows(sheet any) []Row {
	var rows []Row
	gather(reflect.ValueOf(sheet), "", &rows)
	return rows
}

func gather(v reflect.Value, path string, rows *[]Row) {
	switch {
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			gather(v.Elem(), path, rows)
		}
	case v.Type() == quantityType:
		if q := v.Interface().(Quantity); q != (Quantity{}) {
			*rows = append(*rows, Row{path, q.Value, q.Unit, q.Kind, q.Source})
		}
	case v.Type() == fitType:
		f := v.Interface().(Fit)
		for _, c := range []struct {
			op string
			of Coefficients
		}{{"prefill", f.Prefill}, {"decode", f.Decode}} {
			r := reflect.ValueOf(c.of)
			for i := range r.NumField() {
				field := strings.Join([]string{path, c.op, r.Type().Field(i).Tag.Get("yaml")}, ".")
				*rows = append(*rows, Row{field, r.Field(i).Float(), "s", f.Kind, f.Source})
			}
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			gather(v.Index(i), fmt.Sprintf("%s[%d]", path, i), rows)
		}
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			if key == "" || key == "-" {
				continue
			}
			gather(v.Field(i), strings.TrimPrefix(path+"."+key, "."), rows)
		}
	}
}

var fitType = reflect.TypeFor[Fit]()

// format picks a weight format by name, "" meaning the shape's default.
func (s *ModelSheet) format(name string) (Format, error) {
	if name == "" {
		name = s.Default
	}
	formats, err := readFormats()
	if err != nil {
		return Format{}, err
	}
	names := make([]string, len(formats))
	for i, f := range formats {
		if f.Name == name {
			return f, nil
		}
		names[i] = f.Name
	}
	return Format{}, unknown("weight format", name, names)
}

// in combines the shape with a weight format.
func (s *ModelSheet) in(format string) (*hardware.Model, error) {
	f, err := s.format(format)
	if err != nil {
		return nil, err
	}
	return s.model(f)
}
