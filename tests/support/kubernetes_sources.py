"""A small source tree with the forms in which Kubernetes registers flags, fields, gates and kinds."""

import re
from pathlib import Path

FILES = {
    "cmd/kube-apiserver/apiserver.go": """
package main
import ("k8s.io/component-base/cli"; "k8s.io/kubernetes/cmd/kube-apiserver/app")
func main() { command := app.NewAPIServerCommand(); cli.Run(command) }
""",
    "cmd/kube-apiserver/app/server.go": """
package app
import (
    "github.com/spf13/cobra"
    "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
    "k8s.io/component-base/version/verflag"
    cliflag "k8s.io/component-base/cli/flag"
)
func NewAPIServerCommand() *cobra.Command {
    s := options.NewOptions()
    cmd := &cobra.Command{RunE: func(cmd *cobra.Command, args []string) error {
        cmd.Flags().String("inside-run", "", "not a flag of the command")
        return nil
    }}
    fs := cmd.Flags()
    namedFlagSets := s.Flags()
    verflag.AddFlags(namedFlagSets.FlagSet("global"))
    for _, f := range namedFlagSets.FlagSets { fs.AddFlagSet(f) }
    cliflag.PrintSections(namedFlagSets)
    return cmd
}
""",
    "cmd/kube-apiserver/app/options/options.go": """
package options
import (
    "fmt"
    "github.com/spf13/pflag"
    cliflag "k8s.io/component-base/cli/flag"
    "k8s.io/apiserver/pkg/server/options"
)
const port = "secure" + "-port"
var dummies = []string{"old-port", "port"}
type Options struct { *Embedded; Etcd *options.EtcdOptions; Registry Registry; Port int }
type Embedded struct { Audit Batch }
type Batch struct { Size int }
type Registry interface { AddFlags(fs *pflag.FlagSet); Set() error }
type onlyRegistry struct {}
func (r *onlyRegistry) Set() error { return nil }
func (r *onlyRegistry) AddFlags(fs *pflag.FlagSet) { fs.Var(nil, "emulated-version", "") }
func NewOptions() *Options { return &Options{} }
func (s *Options) Flags() (fss cliflag.NamedFlagSets) {
    s.Etcd.AddFlags(fss.FlagSet("etcd"))
    s.Audit.AddFlags("audit-log", fss.FlagSet("audit"))
    s.Registry.AddFlags(fss.FlagSet("generic"))
    fs := fss.FlagSet("misc")
    fs.IntVar(&s.Port, port, 0, "")
    for _, name := range dummies { fs.IntVar(&s.Port, name, 0, "") }
    for _, name := range []string{"address"} { fs.IntVar(&s.Port, name, 0, "") }
    fs.BoolP("yes", "y", false, "")
    name := lookupName()
    fs.String(name, "", "")
    register(fs, "taken_by_name", "deprecated")
    return fss
}
func (b *Batch) AddFlags(prefix string, fs *pflag.FlagSet) {
    fs.Uint64Var(nil, fmt.Sprintf("%s-batch-size", prefix), 0, "")
}
func register(fs *pflag.FlagSet, name, deprecated string) { fs.AddFlag(pflag.Lookup(name)) }
""",
    "cmd/kube-apiserver/app/options/options_windows.go": """
package options
func (b *Batch) AddMore(fs *pflag.FlagSet) { fs.Bool("windows-only", false, "") }
""",
    "staging/src/k8s.io/apiserver/pkg/server/options/etcd.go": """
package options
import "github.com/spf13/pflag"
type EtcdOptions struct {}
func (s *EtcdOptions) AddFlags(fs *pflag.FlagSet) { fs.StringSliceVar(nil, "etcd-servers", nil, "") }
func (s *EtcdOptions) AddOther(fs *pflag.FlagSet) { fs.String("of-another-program", "", "") }
""",
    "staging/src/k8s.io/component-base/cli/run.go": """
package cli
import ("github.com/spf13/cobra"; "k8s.io/component-base/logs")
func Run(cmd *cobra.Command) int { logs.AddFlags(cmd.PersistentFlags()); return 0 }
""",
    "staging/src/k8s.io/component-base/logs/logs.go": """
package logs
import ("flag"; "github.com/spf13/pflag"; "k8s.io/klog/v2")
var packageFlags = flag.NewFlagSet("logging", flag.ContinueOnError)
func init() { choose(packageFlags) }
func choose(fs *flag.FlagSet) {
    var all flag.FlagSet
    klog.InitFlags(&all)
    all.VisitAll(func(f *flag.Flag) { switch f.Name { case "v": fs.Var(f.Value, f.Name, f.Usage) } })
}
func AddFlags(fs *pflag.FlagSet) {
    packageFlags.VisitAll(func(f *flag.Flag) { fs.AddFlag(pflag.PFlagFromGoFlag(f)) })
}
""",
    "vendor/k8s.io/klog/v2/klog.go": """
package klog
import "flag"
func InitFlags(flagset *flag.FlagSet) { flagset.Var(nil, "v", ""); flagset.Bool("logtostderr", true, "") }
""",
    "staging/src/k8s.io/component-base/version/verflag/verflag.go": """
package verflag
import flag "github.com/spf13/pflag"
const name = "version"
func AddFlags(fs *flag.FlagSet) { fs.AddFlag(flag.Lookup(name)) }
""",
    "staging/src/k8s.io/kubelet/config/v1beta1/types.go": """
package v1beta1
import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
type Mode string
type KubeletConfiguration struct {
    metav1.TypeMeta `json:",inline"`
    MaxPods int32 `json:"maxPods,omitempty"`
    SyncFrequency metav1.Duration `json:"syncFrequency,omitempty"`
    Mode *Mode `json:"mode"`
    EvictionHard map[string]string `json:"evictionHard"`
    Webhook Webhook `json:"webhook"`
    Reserved []Reservation `json:"reserved"`
    hidden int
    Ignored string `json:"-"`
}
type Webhook struct { Enabled *bool `json:"enabled"` }
type Reservation struct { Node int32 `json:"node"`; Names []string `json:"names"` }
""",
    "staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/types.go": """
package v1
type TypeMeta struct { Kind string `json:"kind"`; APIVersion string `json:"apiVersion"` }
type Duration struct {}
""",
    "pkg/features/kube_features.go": """
package features
import ("k8s.io/component-base/featuregate"; "k8s.io/apimachinery/pkg/util/version")
const (
    Plain featuregate.Feature = "PlainGate"
    Versioned = featuregate.Feature("VersionedGate")
    Later featuregate.Feature = "LaterGate"
)
var plain = map[featuregate.Feature]featuregate.FeatureSpec{
    Plain: {Default: true, PreRelease: featuregate.GA, LockToDefault: true},
    elsewhere.Unknown: {Default: true, PreRelease: featuregate.Beta},
}
var versioned = map[featuregate.Feature]featuregate.VersionedSpecs{
    Versioned: {
        {Version: version.MustParse("1.30"), Default: false, PreRelease: featuregate.Alpha},
        {Version: version.MustParse("1.38"), Default: true, PreRelease: featuregate.Beta},
        {Version: version.MustParse("1.39"), Default: true, LockToDefault: true, PreRelease: featuregate.GA},
    },
    Later: {{Version: version.MustParse("1.39"), Default: false, PreRelease: featuregate.Alpha}},
}
""",
    "staging/src/k8s.io/api/apps/v1beta1/register.go": """
package v1beta1
import "k8s.io/apimachinery/pkg/runtime/schema"
const GroupName = "apps"
var SchemeGroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1beta1"}
func addKnownTypes(scheme *runtime.Scheme) error {
    scheme.AddKnownTypes(SchemeGroupVersion, &Deployment{}, &DeploymentList{}, &Fleet{}, &FleetList{})
    return nil
}
""",
    "staging/src/k8s.io/api/apps/v1beta1/zz_generated.prerelease-lifecycle.go": """
//go:build !ignore_autogenerated
package v1beta1
func (in *Deployment) APILifecycleRemoved() (major, minor int) { return 1, 16 }
func (in *Fleet) APILifecycleRemoved() (major, minor int) { return 1, 40 }
""",
}  # fmt: skip
FLAGS = {
    "address", "audit-log-batch-size", "emulated-version", "etcd-servers", "help", "old-port", "port",
    "secure-port", "taken-by-name", "v", "version", "yes",
}  # fmt: skip


def write_sources(directory: Path) -> Path:
    """Write the tree, and return its directory."""
    for name, text in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(split_lines(text))
    return directory


def split_lines(text: str) -> str:
    """Return Go text with each import on a line of its own, as gofmt has it."""
    return re.sub(
        r'import \((".*")\)', lambda m: "import (\n" + m[1].replace("; ", "\n") + "\n)", text
    )
