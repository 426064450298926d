package main

import (
	"context"
	"errors"

	"meibench/hardware/endpoint"
	"meibench/hardware/profiles"
	"meibench/harness"
)

// endpointSite is what the site of --endpoint is called.
const endpointSite = "endpoint"

// lab is where the names of a run are looked up: with this machine's profile and
// the server, where they are given.
func (f *runFlags) lab(ctx context.Context, a *app) (*harness.Lab, error) {
	places, err := f.away.places()
	if err != nil {
		return nil, err
	}
	lab := &harness.Lab{Measure: a.measureHost, Agents: places, Version: version()}
	if f.profile != "" {
		host, err := profiles.LoadDevice(f.profile)
		if err != nil {
			return nil, err
		}
		lab.Host = host
	}
	if f.server.URL == "" {
		if f.server.Model != "" || f.server.API != "" || f.server.KeyEnv != "" {
			return nil, errors.New("--endpoint-model, --api and --endpoint-key-env belong to --endpoint URL")
		}
		return lab, nil
	}
	if f.server.Model == "" {
		name, err := endpoint.FirstModel(ctx, endpoint.Config{URL: f.server.URL, KeyEnv: f.server.KeyEnv})
		if errors.Is(err, endpoint.ErrConnect) {
			return nil, withCode(exitEnvironment, err)
		}
		if err != nil {
			return nil, err
		}
		f.server.Model = name
	}
	if _, err := endpoint.New(endpoint.Config{URL: f.server.URL, API: endpoint.API(f.server.API), KeyEnv: f.server.KeyEnv}); err != nil {
		return nil, err
	}
	lab.Sites = map[string]*profiles.SiteSheet{endpointSite: harness.EndpointSite(endpointSite, f.server)}
	return lab, nil
}
