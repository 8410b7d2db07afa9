"""The stage: what a config, a caller and the site ask for, turned into a config with edits.

One screen: gather the requests, turn each into edits, apply all of them to a copy.  Nothing
changes on the machine here; the files that a container needs are in `Applied.tree`, for whoever
makes the container to write.
"""

from __future__ import annotations

from ocirt import bundle, log
from ocirt import system as os
from ocirt.errors import At, ConfigError
from ocirt_hpc import cdi, edits, kinds, request, site
from ocirt_hpc.host import Host
from ocirt_hpc.image import Image
from ocirt_hpc.notes import OTHER, Notes
from ocirt_hpc.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ocirt_hpc import choice
    from ocirt_hpc.edits import Applied, Section
    from ocirt_hpc.host import Pci
    from ocirt_hpc.loader import Libraries
    from ocirt_hpc.nvidia.policy import Policy
    from ocirt_hpc.nvidia.request import Request
    from ocirt_hpc.parts import Part
    from ocirt_hpc.rdma import Chosen
    from ocirt_hpc.request import Asked


ALREADY = "an engine has put it in already"


class Caller:
    """What the command line says, and where things are.

    devices       qualified names of CDI devices
    annotations   whether those that annotations name count as well
    directories   where CDI files are, or () for the usual places
    site          a file instead of the site's own, or ""
    profile       the part of the site's settings that a config gets which names none, or ""
    rootfs        the container's root file system
    place         a directory for files of the container, which nobody has made yet
    foreign       whether another runtime gets the config, and nothing that it has no word for
    """

    def __init__(self, rootfs: str, place: str) -> None:
        self.rootfs = rootfs
        self.place = place
        self.devices: list[str] = []
        self.annotations = False
        self.directories: list[str] = []
        self.site = ""
        self.profile = ""
        self.rootless = False
        self.foreign = False


HOOKS = ("/nvidia-cdi-hook", "/nvidia-ctk")  # programs whose work the stage may do itself


class _Stage:
    """One container on its way through the stage."""

    def __init__(self, config: dict[str, Any], caller: Caller) -> None:
        self.config = config
        self.caller = caller
        self.site = site.load(caller.site)
        self.rows = {**kinds.KINDS, **self.site.kinds}
        self.host = Host(self.site["stage", "host-root"])
        self.tree = Tree(caller.place)
        self.notes = Notes(self.site["stage", "on-missing"])
        self.env_requests: bool = self.site["policy", "env-requests"]
        self._policy: Policy | None = None
        self.files: list[cdi.File] | None = None  # CDI files, once somebody has asked for one
        self.names = request.by_option(caller.devices)  # of CDI devices
        self.annotated: list[str] = []
        if caller.annotations or self.site["policy", "cdi-annotations"]:
            self.annotated = request.by_annotations(config, self.policy.prefixes)
        self.native = self._native()  # what needs no CDI file; no longer among the others
        self._libraries: Libraries | None = None
        self.pmi = ""  # what asks for the launcher's PMI
        self._chosen: choice.Chosen | None = None
        self.given: set[str] = set()  # kinds of devices that the container gets
        self.gpus: list[Pci] = []  # that the container gets, for whatever has to be near
        self.nics: list[Pci] = []
        self.nvidias = False  # whether GPUs of NVIDIA's are asked for, be they none

    @property
    def policy(self) -> Policy:
        """What the site has told NVIDIA's toolkit."""
        if self._policy is None:
            from ocirt_hpc.nvidia import policy

            self._policy = policy.load(self.host)
        return self._policy

    @property
    def directories(self) -> Iterable[str]:
        """Where CDI files are."""
        return self.caller.directories or self.policy.directories or cdi.DIRECTORIES

    def _cdi_files(self) -> list[cdi.File]:
        if self.files is None:
            self.files = cdi.read(self.directories)
        return self.files

    def _native(self) -> request.Asked | None:
        """Return the names of CDI devices that are NVIDIA's and that no CDI file describes."""
        from ocirt_hpc.nvidia.request import KINDS, applied

        if not any(name.startswith(KINDS) for name in (*self.names, *self.annotated)):
            return None
        kinds = set(KINDS) - {file.kind for file in self._cdi_files()}
        named = [name for name in self.names if name.partition("=")[0] in kinds]
        noted = [name for name in self.annotated if name.partition("=")[0] in kinds]
        self.names = [name for name in self.names if name not in named]
        self.annotated = [name for name in self.annotated if name not in noted]
        for file in self._cdi_files() if named or noted else ():
            if file.fault and file.kind is None:
                log.warning(f"CDI file left out: {file.path}: {file.fault}")
        if named:
            return request.Asked(",".join(named), "--device nvidia.com/gpu", "--device")
        if noted and applied(self.config):
            self.notes.left_out += [(name, ALREADY) for name in noted]
        elif noted:
            where = f"annotations.{request.CDI_PREFIX}*"
            return request.Asked(",".join(noted), noted[0], where)
        return None

    def cdi(self) -> list[Section]:
        """Devices that a CDI file describes."""
        names = self.names
        more = [name for name in self.annotated if name not in names]
        if not names and not more:
            return []
        found = cdi.look_up(names + more, self._cdi_files(), self.directories)
        # An engine leaves the annotations in the config that it has edited.
        here = [one for one in found if one.name in names or not edits.present(self.config, one)]
        for one in found:
            if one not in here:
                self.notes.left_out.append((one.name, ALREADY))
            elif one.name in more:
                self.notes.rules[one.name] = self.notes.rules[one.file.kind or ""] = OTHER
        self.given |= {one.file.kind or "" for one in found}
        return edits.of_cdi(here)

    def nvidia(self) -> list[Section]:
        """NVIDIA's GPUs."""
        from ocirt_hpc.nvidia import request as nvidia

        by_part, rule = self._gpus()
        asked = nvidia.find(
            self.config,
            self.notes,
            self.policy,
            env_requests=self.env_requests,
            by_name=self.native,
            by_part=by_part,
            default=self.site["nvidia", "request-default"],
            kinds=self.site["nvidia", "cdi-kinds"],
        )
        if asked is None:
            return []
        self.nvidias = True
        others = self._by_file(asked) if asked.by_file else []
        if asked.by_file and not asked.asked.names:
            return others
        from ocirt_hpc.nvidia import driver, files, stage

        with At("nvidia.capabilities in hpc.toml"):
            files.capabilities(self.site["nvidia", "capabilities"])
        self.notes.allow(asked.asked)
        if asked.asked is by_part:
            self.notes.rules[by_part.origin] = rule
        asked.limit(self.site["nvidia", "capabilities"])
        if self.site["nvidia", "disable-require"]:
            asked.requirements = {}
        asked.compat = asked.compat and self.site["nvidia", "cuda-compat"]
        if asked.management is not None:
            self.notes.allow(asked.management)
            if not self.site["nvidia", "mig-management"]:
                where = asked.management.where
                raise ConfigError(where, "not allowed (nvidia.mig-management in hpc.toml)")
        if self.site["nvidia", "driver-root"] != "/":
            asked.driver_root = self.site["nvidia", "driver-root"]
        asked.new_nodes = self.new_nodes
        asked.nvml_timeout = self.site["nvidia", "nvml-timeout"]
        asked.places = driver.places(self.site)
        asked.native = self.site["nvidia", "layout"] == "native"
        if asked.native and self.caller.foreign:
            why = "it takes links, which another runtime does not make"
            self.notes.leave_out('nvidia.layout="native"', why)
            asked.native = False
        with Image(self.caller.rootfs) as image:
            sections, chosen = stage.sections(
                asked, self.host, image, self.tree, self.notes, self.libraries
            )
            if chosen and "compute" in files.capabilities(asked.capabilities):
                from ocirt_hpc.nvidia import mps

                given = self.site["nvidia", "mps"], asked.asked.origin
                sections += mps.sections(self.config, self.host, self.notes, *given)
            if image.readonly:
                from ocirt_hpc import readonly

                sections = readonly.fit(sections, self.config, image, self.tree, self.notes)
        self.given |= {"nvidia"} if chosen else set()
        places = (self.host.pci(one.gpu.address) for one in chosen)
        self.gpus = [pci for pci in places if pci is not None]
        return others + sections

    def _gpus(self) -> tuple[request.Asked | None, str]:
        """Return the GPUs that the last module or profile gives, and what allows that."""
        for part, rule in reversed(self.chosen.parts):
            value, where = part.get("gpus"), f"{part.where}gpus"
            if value:
                return request.Asked(value, f"{where}={value}", where), rule
        return None, ""

    def _by_file(self, request: Request) -> list[Section]:
        """Return the edits of CDI files for the names that are theirs.

        Those of GPUs that no file describes go back to the request.
        """
        from ocirt_hpc.nvidia.request import KINDS, unqualified

        kinds = set(KINDS) - {file.kind for file in self._cdi_files()}
        native = [name for name in request.by_file if name.partition("=")[0] in kinds]
        request.asked.names += [unqualified(name) for name in native]
        names = [name for name in request.by_file if name not in native]
        with At(request.asked.where):
            found = cdi.look_up(names, self._cdi_files(), self.directories) if names else []
        self.notes.allow(request.asked)
        for one in found:
            rule = self.notes.rules[request.asked.origin]
            self.notes.rules[one.name] = self.notes.rules[one.file.kind or ""] = rule
            self.given.add(one.file.kind or "")
        return edits.of_cdi([one for one in found if not edits.present(self.config, one)])

    @property
    def libraries(self) -> Libraries:
        """What the container gets for its loader; most requests have nothing for it."""
        if self._libraries is None:
            from ocirt_hpc.loader import Libraries

            self._libraries = Libraries()
        return self._libraries

    @property
    def new_nodes(self) -> bool:
        """Whether nodes can be made in the container; the host's are bound else."""
        mapped = request.has_namespace(self.config, "user")
        return not (mapped or self.caller.rootless or os.geteuid())

    def hooks(self, sections: list[Section]) -> list[Section]:
        """The sections, with the work of NVIDIA's hooks in place of the hooks."""
        held = [(self.config.get("hooks") or {}).get("createContainer") or ()]
        held += [section.get("hooks") or () for _, section in sections]
        paths = [hook["path"] for hooks in held for hook in hooks]
        if not any(path.endswith(HOOKS) for path in paths) or self.caller.foreign:
            return sections
        from ocirt_hpc.nvidia import cdihooks

        with Image(self.caller.rootfs) as image:
            job = cdihooks.Job(self.host, image, self.tree, self.libraries)
            job.compat = self.site["nvidia", "cuda-compat"]
            if image.readonly:
                from ocirt_hpc import readonly

                job.may_link = lambda path: readonly.below_a_mount(self.config, path)
            return cdihooks.take_over(self.config, sections, job, self.notes)

    def loader(self) -> list[Section]:
        """The word to the image's loader where the libraries are that were given to it."""
        held, how = self._libraries, self.site["stage", "loader"]
        if held is None or not held.folders or how == "none":
            return []
        from ocirt_hpc import loader

        made = [(held.origin, loader.env(held.folders))] if how in ("env", "both") else []
        if how in ("cache", "both"):
            with Image(self.caller.rootfs) as image:
                room = self._room(image)
                way = loader.tell(image, held.entries, held.folders, self.tree, room)
            made.append((held.origin, way.edits))
        return made

    def _room(self, image: Image) -> Callable[[str], bool]:
        """Return what tells whether something can be mounted at a path of the image."""
        if not image.readonly:
            return lambda path: True
        from ocirt_hpc import readonly

        return lambda path: readonly.room(self.config, image, path)

    def rdma(self, more: list[Section]) -> list[Section]:
        """RDMA devices; `more`: the edits that come after these."""
        asked = request.rdma(self.config, self.notes, env_requests=self.env_requests)
        default = self.site["rdma", "with-gpus"]
        if asked is None and self.gpus and default != "none":
            asked = request.Asked(
                default, f"rdma.with-gpus={default}", "rdma.with-gpus in hpc.toml"
            )
        if asked is None or asked.names == ["none"]:
            return []
        from ocirt_hpc import exclusive, rdma

        self.notes.allow(asked)
        with At(asked.where):
            found = exclusive.find(self.host, asked)
            if not found and not (asked.explicit and self.notes.on_missing == "auto"):
                self.notes.missing(asked, "this host has no RDMA device")
                return []
            chosen = rdma.choose(found, asked.names, self.gpus)
            nodes = rdma.nodes(self.host, chosen, management=self.site["rdma", "management"])
        if not chosen:
            self.notes.leave_out(asked.origin, "this host has no RDMA device")
            return []
        self.given.add("rdma")
        self.nics = [one.device.pci for one in chosen if one.device.pci is not None]
        sections = [edits.node_edits(nodes)]
        if exclusive.own_network(self.config, more) and exclusive.active(self.host):
            why = exclusive.refusal(
                asked,
                self.site["rdma", "move"],
                rootless=self.caller.rootless,
                foreign=self.caller.foreign,
            )
            if why and asked.explicit:
                raise ConfigError(asked.where, why)
            if why:
                self.notes.leave_out(asked.origin, why)
                return []
            sections.append({"rdmaDevices": list({one.device.name: None for one in chosen})})
        sections.append(self._verbs(chosen, asked))
        limits = {
            "hcaHandles": self.site["rdma", "hca-handles"],
            "hcaObjects": self.site["rdma", "hca-objects"],
        }
        sections.append(rdma.limit_edits(chosen, request.rdma_limits(self.config), limits))
        # A machine that is only a directory has no sysfs to cover.
        if self.site["rdma", "hide-others"] and not self.host.root:
            sections.append(rdma.view_edits(self.host, chosen, found, self.tree))
        sections.append(rdma.memlock_edits(self.site["rdma", "memlock"]))
        if self.site["rdma", "hints"]:
            from ocirt_hpc import hints

            with Image(self.caller.rootfs) as image:
                made = hints.edits(
                    self.host,
                    chosen,
                    self.notes,
                    asked.origin,
                    image,
                    self.config,
                    more,
                    own_network=exclusive.own_network(self.config, more),
                )
            sections.append(made)
        return [(asked.origin, section) for section in sections]

    def cpuset(self) -> list[Section]:
        """The CPUs and the memory near the devices."""
        if not self.gpus and not self.nics:
            return []
        from ocirt_hpc import cpuset

        return cpuset.sections(
            self.config,
            self.host,
            self.gpus or self.nics,
            self.notes,
            self.site["topology", "cpuset"],
            rootless=self.caller.rootless,
        )

    def _verbs(self, chosen: list[Chosen], asked: Asked) -> dict[str, Any]:
        """The host's user-space side of RDMA, as the site wants it."""
        setting = self.site["rdma", "userland"]
        if setting == "never":
            return {}
        from ocirt_hpc import verbs
        from ocirt_hpc.hostlibs import Shelf

        with Image(self.caller.rootfs) as image, At("rdma.userland in hpc.toml"):
            shelf = Shelf(self.host, image)
            wanted = list({verbs.provider(self.host, one): None for one in chosen})
            if setting == "auto" and not verbs.missing(shelf, wanted):
                return {}
            try:
                return verbs.edits(shelf, wanted, self.tree, self.libraries, asked.origin)
            except ConfigError as error:
                if setting == "always":
                    raise
                self.notes.leave_out(asked.origin, f"{verbs.missing(shelf, wanted)}, and {error}")
                return {}

    def kinds(self) -> list[Section]:
        """Devices that are nodes and nothing more."""
        sections: list[Section] = []
        found = kinds.asked(self.config, self.rows, self.notes, env_requests=self.env_requests)
        for name, asked in found:
            made = kinds.edits(self.host, name, self.rows[name], asked, new_nodes=self.new_nodes)
            if made is None:
                with At(asked.where):
                    self.notes.missing(asked, "this host has no such device")
                continue
            self.notes.allow(asked)
            chosen, nodes, more = made
            self.given.add(name)
            places = (self.host.pci(one.address) for one in chosen if one.address)
            self.gpus += [pci for pci in places if pci is not None]
            sections += [(asked.origin, edits.node_edits(nodes)), (asked.origin, more)]
        return sections

    @property
    def chosen(self) -> choice.Chosen:
        """Which parts of the site's settings the container gets."""
        if self._chosen is None:
            from ocirt_hpc import choice

            self._chosen = choice.choose(
                self.config,
                self.site,
                self.notes,
                profile=self.caller.profile,
                rootless=self.caller.rootless,
            )
        return self._chosen

    def mounts(self) -> list[Section]:
        """Mounts of the site's with a condition, once all that conditions are about is known."""
        chosen = self.chosen
        if not any(item.get("when") for part, _ in chosen.parts for item in part.get("mounts")):
            return []
        from ocirt_hpc import parts

        env = request.variables(self.config) if self.env_requests else None
        made: list[Section] = []
        with Image(self.caller.rootfs) as image:
            facts = parts.Facts(env, image, chosen.profile, self.given)
            for part, rule in chosen.parts:
                sections = parts.conditional(part, self.host, self.notes, facts)
                self.notes.rules.update({origin: rule for origin, _ in sections})
                made += sections
        return made

    def parts(self) -> list[Section]:
        """What the site adds by itself, and hooks."""
        chosen = self.chosen
        made: list[tuple[str, list[Section]]] = []
        pmi = request.flag(self.config, "ocirt.hpc/pmi")
        if pmi is not None:
            self.pmi = pmi.where if pmi.names == ["true"] else ""
        if chosen.parts:
            from ocirt_hpc import parts

            for part, rule in chosen.parts:
                made.append((rule, parts.sections(part, self.host, self.notes)))
                if part.get("own-ids"):
                    made.append((rule, self._own_ids(part)))
                if part.get("pmi") and pmi is None:
                    self.pmi = f"{part.where}pmi"
                    self.notes.rules[self.pmi] = rule
                if part.get("libraries"):
                    made.append((rule, self._swap(part)))
        if chosen.site:
            from ocirt_hpc import users

            made.append(
                (
                    chosen.site,
                    users.sections(
                        self.config,
                        self.site,
                        self.host,
                        self.tree,
                        self.notes,
                        self.caller.rootfs,
                    ),
                )
            )
        if self.site["hooks", "dirs"]:
            from ocirt_hpc import hooksd

            made.append(("hooks.dirs", hooksd.sections(self.site["hooks", "dirs"], self.config)))
        for rule, sections in made:
            self.notes.rules.update({origin: rule for origin, _ in sections})
        return [section for _, sections in made for section in sections]

    def hugepages(self) -> list[Section]:
        """A file system of huge pages."""
        setting = self.site["rdma", "hugepages"]
        if setting != "always" and request.annotation(self.config, request.HUGEPAGES) is None:
            return []
        from ocirt_hpc import hugepages

        return hugepages.sections(
            self.config,
            self.host,
            self.notes,
            setting,
            rdma="rdma" in self.given,
            rootless=self.caller.rootless,
        )

    def look_at_dev(self, applied: Applied) -> None:
        """Tell where the container sees all of the host's nodes, whatever was chosen for it."""
        mount = bundle.dev_mount(applied.config)
        if mount is None:
            return
        resources = (applied.config.get("linux") or {}).get("resources") or {}
        denied = any(not rule["allow"] for rule in resources.get("devices") or ())
        origin = applied.name(f"mounts[{mount}]")
        what = "the host's /dev is mounted whole: the choice of devices holds"
        if denied and not self.caller.rootless:
            self.notes.suggest(origin, f"{what} by the cgroup's device rules alone")
        else:
            self.notes.warn(origin, f"{what} for nothing, since no device rule denies any")

    def launcher(self, more: list[Section]) -> list[Section]:
        """What a launcher of MPI has for its ranks; `more` as for `rdma`."""
        if not self.pmi:
            return []
        from ocirt_hpc import pmi

        return pmi.sections(edits.Place(self.pmi), self.config, more, self.host, self.notes)

    def _own_ids(self, part: Part) -> list[Section]:
        """Who he is decides what he gets, so that it counts from here on."""
        found = edits.own_ids(self.config)
        if found is None:
            return []
        linux = {**self.config["linux"], **found}
        process = self.config["process"]
        process = {**process, "user": {**(process.get("user") or {}), **linux.pop("user")}}
        self.config = {**self.config, "linux": linux, "process": process}
        return [(edits.Place(f"{part.where}own-ids"), {"ownIds": [found]})]

    def _swap(self, part: Part) -> list[Section]:
        """Libraries of the host for the image's, as a part of the site's settings has it."""
        from ocirt_hpc import swap
        from ocirt_hpc.hostlibs import Shelf

        where = f"{part.where}libraries"
        with Image(self.caller.rootfs) as image, At(where):
            shelf = Shelf(self.host, image)
            held = part.get("libraries")
            return swap.sections(
                held, edits.Place(where), shelf, self.tree, self.libraries, self.notes
            )


def run(config: dict[str, Any], caller: Caller) -> Applied | None:
    """Return the config with the edits of what is asked for; None when that comes to nothing.

    The order decides where two edits meet: a later one replaces an earlier one's.
    """
    stage = _Stage(config, caller)
    sections = stage.cdi()
    if stage.site["stage", "enabled"]:
        request.check(config, stage.rows)
        if request.is_sandbox(config):
            stage.notes.skip("annotations", "the sandbox of a pod uses no devices")
            sections += stage.parts() + stage.mounts()
        else:
            sections += stage.nvidia()
            more = stage.kinds() + stage.parts()
            sections += stage.rdma(more) + more + stage.mounts() + stage.hugepages()
            sections += stage.cpuset() + stage.launcher(more)
            request.alone(
                config, stage.notes, {"GPUs": stage.nvidias, "RDMA devices": "rdma" in stage.given}
            )
        if stage.site["nvidia", "emulate-hooks"]:
            sections = stage.hooks(sections)
        sections += stage.loader()
    if not sections and not stage.notes.left_out:
        return None
    for origin, section in sections:
        for index, hook in enumerate(section.get("hooks") or ()):
            # Of the host, but for those that run inside: better now than half-way.
            if hook["hookName"] != "startContainer" and not os.path.exists(hook["path"]):
                where = origin if isinstance(origin, edits.Place) else f"{origin}: hooks[{index}]"
                raise ConfigError(where, hook["path"], "no such file or directory")
    applied = edits.apply(config, sections, rootless=caller.rootless)
    if caller.foreign:
        for path, target, origin in applied.links:
            stage.notes.leave_out(origin, f"another runtime makes no link {path} -> {target}")
    if stage.given:
        stage.look_at_dev(applied)
    applied.tree = stage.tree or None
    applied.report = stage.notes.report(sections, config)
    return applied
