// Package page is what the pages of reports and leaderboards share: the look,
// the script that sorts and filters their tables, and the policy under which a
// browser shows them.
//
// A page is one file that asks nothing of a network: the policy forbids it, and
// forbids every script but the one here.
package page

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
)

//go:embed report.css report.js report.html
var files embed.FS

// Style is the style sheet, light, dark and for print.
func Style() template.CSS { return template.CSS(read("report.css")) }

// Script is the script that sorts and filters tables of class sortable. A page
// reads the same without it.
func Script() template.JS { return template.JS(read("report.js")) }

// Report is the template of the page of a report.
func Report() string { return read("report.html") }

// Policy is the content security policy of a page whose only script is the one
// given.
func Policy(script template.JS) string {
	sum := sha256.Sum256([]byte(script))
	return "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func read(name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is in the program
	}
	return string(b)
}
