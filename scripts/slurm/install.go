package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// packages are Debian's. Their services must not start: policyFile says so.
var packages = []string{"munge", "slurm-client", "slurm-wlm", "slurmctld", "slurmd"}

const policyFile = "/usr/sbin/policy-rc.d"

// places are folders that the packages or their services may leave behind.
var places = []string{"/etc/munge", "/etc/slurm", "/run/munge", "/var/lib/munge", "/var/lib/slurm", "/var/log/munge", "/var/log/slurm", "/var/spool/slurm"}

// installation is what was here before.
type installation struct {
	packages, users, groups, places []string
	policy                          bool // a policy was here
}

func state() (s installation, err error) {
	text, err := output("", "dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}${binary:Package}\n")
	if err != nil {
		return s, err
	}
	s.packages = strings.Split(strings.TrimSpace(text), "\n")
	if s.users, err = first("/etc/passwd"); err != nil {
		return s, err
	}
	if s.groups, err = first("/etc/group"); err != nil {
		return s, err
	}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			s.places = append(s.places, p)
		}
	}
	_, err = os.Stat(policyFile)
	s.policy = err == nil
	return s, nil
}

// first lists the first fields of a file of lines.
func first(path string) (out []string, err error) {
	text, err := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, ":")
		out = append(out, name)
	}
	return out, err
}

// install installs the packages without starting their services. What it returns takes
// all away again that was not here before.
func install() (remove func() error, err error) {
	before, err := state()
	if err != nil {
		return nil, fmt.Errorf("%w: this installs Debian packages; elsewhere install Slurm yourself and say -installed", err)
	}
	remove = func() error { return restore(before) }
	if !before.policy {
		if err := os.WriteFile(policyFile, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return nil, err
		}
	}
	if err := apt(append([]string{"install", "--no-install-recommends"}, packages...)...); err != nil {
		return nil, errors.Join(err, remove())
	}
	return remove, nil
}

func apt(args ...string) error {
	c := exec.Command("apt-get", append([]string{"-y", "-qq", "-o", "DPkg::Lock::Timeout=300"}, args...)...)
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// restore purges what was installed since, and removes users and folders that packages
// leave behind. It says so if something stays.
func restore(before installation) error {
	now, err := state()
	if err != nil {
		return err
	}
	var errs []error
	var added []string
	for _, p := range without(now.packages, before.packages) {
		if _, name, ok := strings.Cut(p, " "); ok {
			added = append(added, strings.TrimSpace(name))
		}
	}
	if len(added) > 0 {
		errs = append(errs, apt(append([]string{"purge"}, added...)...))
	}
	if now, err = state(); err != nil { // purging takes most of the users with it
		return errors.Join(append(errs, err)...)
	}
	for _, u := range without(now.users, before.users) {
		_, err := output("", "userdel", u)
		errs = append(errs, err)
	}
	if now, err = state(); err != nil { // and a user its group
		return errors.Join(append(errs, err)...)
	}
	for _, g := range without(now.groups, before.groups) {
		_, err := output("", "groupdel", g)
		errs = append(errs, err)
	}
	for _, p := range without(places, before.places) {
		errs = append(errs, os.RemoveAll(p))
	}
	if !before.policy {
		if err := os.Remove(policyFile); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	after, err := state()
	left := slices.Concat(without(after.packages, before.packages), without(after.users, before.users), without(after.groups, before.groups), without(after.places, before.places))
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("still here, and not before: %s", strings.Join(left, ", ")))
	}
	return errors.Join(append(errs, err)...)
}

// without is what of a list is not in another.
func without(list, other []string) (out []string) {
	for _, s := range list {
		if !slices.Contains(other, s) {
			out = append(out, s)
		}
	}
	return out
}
