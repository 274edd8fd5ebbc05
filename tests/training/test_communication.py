"""Communication is read from the text of compiled programs as it is."""

import pytest

from lgs_jax.training import communication

MESH = {"data": 2, "fsdp": 4}

# As XLA writes them for 8 devices: a loop of three trips, a fusion, an asynchronous pair.
TEXT = """
HloModule step, entry_computation_layout={()->f32[]}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: f32[8,4]) -> f32[2,4] {
  ROOT %scattered = f32[2,4]{1,0} reduce-scatter(%p), replica_groups=[2,4]<=[8], to_apply=%add
}

%body (state: (s32[], bf16[16])) -> (s32[], bf16[16]) {
  %x = bf16[16]{0:T(1024)(128)(2,1)S(1)} collective-permute(%y), source_target_pairs={{0,4},{4,0}}
  ROOT %next = (s32[], bf16[16]{0}) tuple(%i, %x)
}

%condition (state: (s32[], bf16[16])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (w: f32[8,4]) -> f32[] {
  %both = (f32[10]{0}, pred[8]{0}) all-reduce(%a, %b), replica_groups={{0,4},{1,5}}, to_apply=%add
  %start = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%w), replica_groups=[2,4]<=[8]
  %done = f32[8,4]{1,0} all-gather-done(%start)
  %alone = f32[99]{0} all-reduce(%a), replica_groups={{0},{1},{2}}, to_apply=%add
  %small = f32[2,4]{1,0} fusion(%done), kind=kCustom, calls=%fused
  %loop = (s32[], bf16[16]{0}) while(%init), condition=%condition, body=%body, TRIPS
  ROOT %out = f32[] constant(0)
}
"""


def read(trips='backend_config={"known_trip_count":{"n":"3"}}'):
    text = TEXT.replace("TRIPS", trips)
    return {each.kind: each for each in communication.collectives(text, 8)}


def test_sizes_groups_and_trips():
    found = read()
    assert len(found) == 4  # a group of one device sends nothing
    reduced, gathered = found["all-reduce"], found["all-gather"]
    assert (reduced.result_bytes, reduced.group, reduced.times) == (48, (0, 4), 1)
    assert (gathered.result_bytes, gathered.group) == (128, (0, 1, 2, 3))
    scattered, moved = found["reduce-scatter"], found["collective-permute"]
    assert (scattered.result_bytes, scattered.group) == (32, (0, 1, 2, 3))
    assert (moved.result_bytes, moved.times, moved.bounded) == (32, 3, True)


def test_what_a_device_sends():
    sent = {kind: each.sent_bytes for kind, each in read().items()}
    assert sent == {
        "all-reduce": 2 * 48 / 2,
        "all-gather": 128 * 3 / 4,
        "reduce-scatter": 128 * 3 / 4,
        "collective-permute": 32 * 3,
    }


def test_pieces_of_one_collective_count_once():
    """As XLA for TPUs writes a gather that goes on during two convolutions, and another one."""
    piece = (
        "  %{name} = bf16[3,64]{{1,0:T(8,128)(2,1)S(1)}} all-gather(%p), channel_id={channel}, "
        "replica_groups={{{{0,1,2,3}}}}, dimensions={{0}}, "
        'frontend_attributes={{chain_id="{chain}"}}, metadata={{op_name="conv"}}'
    )
    fusions, calls = [], []
    for i, (channel, chain) in enumerate([(6, 1), (6, 1), (6, 1), (7, 2), (7, 2)]):
        line = piece.format(name=f"gather.{i}", channel=channel, chain=chain)
        fusions.append(f"%fused.{i} (p: bf16[1,64]) -> bf16[3,64] {{\n{line}\n}}\n")
        calls.append(f"  %f.{i} = bf16[3,64]{{1,0}} fusion(%w), kind=kCustom, calls=%fused.{i}")
    main = "\n".join(["ENTRY %main (w: bf16[1,64]) -> f32[] {", *calls, "}"])
    found = communication.collectives("\n".join([*fusions, main]), 4)
    assert [each.result_bytes for each in found] == [3 * 64 * 2] * 2


def test_the_reduce_scatter_of_a_tpu():
    text = """
%all-reduce-scatter.3 (input: f32[128,128]) -> f32[32,128] {
  %all-reduce.1 = f32[128,128]{1,0:T(8,128)} all-reduce(%input), replica_groups={{0,1,2,3}}
  ROOT %mine = f32[32,128]{1,0:T(8,128)S(1)} dynamic-slice(%all-reduce.1, %place, %zero)
}

ENTRY %main (w: f32[128,128]) -> f32[32,128] {
  ROOT %f = f32[32,128]{1,0} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.3
}
"""
    (found,) = communication.collectives(text, 4)
    assert (found.kind, found.result_bytes) == ("reduce-scatter", 32 * 128 * 4)
    assert found.sent_bytes == 3 / 4 * 128 * 128 * 4


@pytest.mark.parametrize(
    ("shapes", "kind", "size"),
    [
        ("((f32[8], /*index=1*/f32[4]), (f32[2], f32[1]))", "reduce-scatter", 12),
        ("((f32[2], f32[1]), (f32[8], f32[4]))", "all-gather", 48),
        ("((f32[4,2]), f32[4,2])", "all-to-all", 32),
        ("f32[12]", "all-reduce", 48),
        ("(bf16[6], bf16[6], u32[], u32[])", "collective-permute", 12),
    ],
)
def test_the_start_of_a_collective_lists_its_operands_too(shapes, kind, size):
    """As XLA for GPUs writes them."""
    line = f"  %start = {shapes} {kind}-start(%x, %y), replica_groups=[1,4]<=[4]"
    text = "\n".join(["ENTRY %main (x: f32[8]) -> f32[2] {", line, "}"])
    (found,) = communication.collectives(text, 4)
    assert (found.kind, found.result_bytes) == (kind, size)


def test_a_loop_of_unknown_length_is_marked():
    moved = read("metadata={}")["collective-permute"]
    assert (moved.times, moved.bounded) == (1, False)


def test_sums_by_kind_and_axes():
    found = list(read().values())
    rows = communication.table([*found, found[0]], MESH)
    assert {(row["kind"], row["axes"], row["count"], row["sent_bytes"]) for row in rows} == {
        ("all-reduce", "data", 2, 96.0),
        ("collective-permute", "data", 3, 96.0),
        ("all-gather", "fsdp", 1, 96.0),
        ("reduce-scatter", "fsdp", 1, 96.0),
    }


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("replica_groups={{0,2},{1,3}}", (0, 2)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("replica_groups=[4,2]<=[8]", (0, 1)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(2)2}", (0, 1)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b':(1)2}", (0, 2, 4, 6)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=(0,3,1,2) {'b'}", (0, 3)),
        ("replica_groups={}", tuple(range(8))),
    ],
)
def test_every_way_to_write_groups(groups, expected):
    text = f"ENTRY %main (x: f32[4]) -> f32[4] {{\n  %y = f32[4]{{0}} all-reduce(%x), {groups}\n}}"
    (found,) = communication.collectives(text, 8)
    assert found.group == expected


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        communication.collectives("hello", 2)
    text = "ENTRY %main () -> f32[] {\n  %y = f32[] all-reduce(%x), replica_groups=(0,1)\n}"
    with pytest.raises(ValueError, match="not known: %y"):
        communication.collectives(text, 2)
