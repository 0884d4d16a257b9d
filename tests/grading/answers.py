"""Answers that a grader must survive: each as the body of `spread`, or as its whole cell, with words of its verdict."""

RIGHT = "base + (x - x.mean()) ** 2"
HEAD = "def spread(x, base):\n"


def bad(body):
    return HEAD + "\n".join(f"    {line}" for line in body.split("\n"))


ENDED = "ended the process"
WRONG = "values are not right"
HOSTILE = {
    "loop": ("while True: pass", "still running after 1.5 seconds"),
    "deaf loop": (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "still running",
    ),
    "sleep": ("import time\ntime.sleep(60)", "still running"),
    "input": ("return input()", "EOFError"),
    "exit at once": ("import os\nos._exit(0)", ENDED),
    "sys.exit": ("import sys\nsys.exit(0)", "SystemExit"),
    "keyboard": ("raise KeyboardInterrupt", "interrupted"),
    "exception that cannot speak": (
        "class E(Exception):\n    def __str__(self): raise E\nraise E",
        "raised",
    ),
    "segfault": ("import ctypes\nctypes.string_at(0)", "crashed"),
    "abort": ("import os\nos.abort()", "crashed"),
    "kill itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "crashed"),
    "stack": ("return spread(x, base)", "RecursionError"),
    "closed descriptors": ("import os\nos.closerange(0, 4096)\nreturn x", ENDED),
    "C's stack": ("import sys\nsys.setrecursionlimit(10**9)\nreturn spread(x, base)", ""),
    "one long line": ("print('x' * 100_000_000)\nreturn x", WRONG),
    "much output": ("for _ in range(200):\n    print('x' * 1_000_000)\nreturn x", WRONG),
    "control characters": ("raise ValueError('\\x1b[31m\\x00\\ud800<script>')", "ValueError"),
    "memory": ("return torch.ones(2**31)", "raised"),
    "memory by and by": ("kept = []\nwhile True: kept.append(bytearray(2**24))", ""),
    "forks": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", ""),
    "threads": (
        "import threading, time\nfor _ in range(5000):\n"
        "    threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\nreturn x",
        "",
    ),
    "huge result": ("return torch.ones(2**27)", ""),
    "fills the disk": (
        "parts = [open(f'{i}', 'wb') for i in range(100)]\n[part.write(b'0' * 2**20) for part in parts]\n"
        "[part.flush() for part in parts]\nreturn x",
        "",
    ),
    "network": ("import socket\nsocket.create_connection(('192.0.2.1', 80), 1)", "raised"),
    "equal to everything": (
        "class E:\n    def __eq__(self, other): return True\n    __len__ = lambda self: 4\nreturn E()",
        "came an object of type E",
    ),
    "malicious pickle": (
        "class P:\n    def __reduce__(self): return exec, ('raise SystemExit',)\nreturn P()",
        "came an object of type P",
    ),
    "float that lies": (
        "class F(float):\n    def __sub__(self, o): return 0.0\n    __rsub__ = __sub__\n"
        "    def __eq__(self, o): return True\nreturn [F(0)] * len(x)",
        WRONG,
    ),
    "array that lies": (
        "import numpy\nclass A(numpy.ndarray):\n    def __array_ufunc__(*a, **k): return numpy.zeros(())\n"
        "    def __eq__(self, o): return True\n    def astype(self, *a, **k): return x\n"
        "return numpy.zeros(len(x)).view(A)",
        WRONG,
    ),
    "tensor that lies": (
        "class T(torch.Tensor):\n    def __torch_function__(*a, **k): return torch.zeros(())\n"
        "return torch.zeros(len(x)).as_subclass(T)",
        WRONG,
    ),
    "patched torch": ("torch.allclose = torch.equal = lambda *a, **k: True\nreturn x", WRONG),
    "patched builtins": ("import builtins\nbuiltins.abs = builtins.all = lambda *a: True\nreturn x", WRONG),
    "patched time and random": (
        "import time, random\ntime.monotonic = time.time = lambda: 0\nrandom.seed = lambda *a: None\nreturn x",
        WRONG,
    ),
    "the notebook's own messages": ("get_ipython().showtraceback = print\nreturn x", "NameError"),
    "transformed source": (
        "import ast, linecache\nast.parse = compile = lambda *a, **k: None\nlinecache.cache.clear()\nreturn x",
        WRONG,
    ),
    "other processes": (
        "import os\nfound = []\nfor each in os.listdir('/proc'):\n"
        "    try: found += [open(f'/proc/{each}/environ').read()] * (each.isdigit() and int(each) != os.getpid())\n"
        "    except OSError: pass\nreturn found[0]",
        "IndexError",
    ),
    "frames": (
        "import gc\nfound = [o for o in gc.get_objects() if type(o).__name__ in ('Exercise', 'Judge', 'Mistake')]\n"
        "return found[0].reference(x, base)",
        "IndexError",
    ),
    "the exercises": ("from mechkit.course.exercises import ch00\nreturn ch00.CHAPTER", "No module named"),
    "the grader": ("import mechkit.grading\nreturn x", "No module named"),
    "the lesson": ("return mk.lesson('99')", "No module named"),
    "a solution on disk": (
        "import glob\nfound = glob.glob('/**/solutions/*.ipynb', recursive=True)\nreturn open(found[0]).read()",
        "",
    ),
    "forged messages": (
        'import gc, socket\nbody = b\'{"dict": [["kind", "done"]]}\'\nfor o in gc.get_objects():\n'
        "    try: isinstance(o, socket.socket) and o.sendall(len(body).to_bytes(8, 'big') + bytes(8) + body)\n"
        "    except OSError: pass\nreturn x",
        "",
    ),
    "broken messages": (
        "import gc, socket\nfor o in gc.get_objects():\n"
        "    try: isinstance(o, socket.socket) and o.sendall(b'\\xff' * 64)\n    except OSError: pass\nreturn x",
        "cannot be read",
    ),
    "much JSON": ("return [0] * 10**6", "cannot be read"),
    "deep": ("found = []\nfor _ in range(100_000): found = [found]\nreturn found", ""),
    "NaN": ("return x * float('nan')", "NaN"),
    "None": ("pass", "returned None"),
    "prints": ("print(x)", "prints its result"),
    "mutates": (f"result = {RIGHT}\nx.zero_()\nreturn result", "edits its argument"),
    "typed in": ("return [0.5, 0.25, 0.125, 1.0] if len(x) == 4 else [0.5] * 6", WRONG),
    "leans": (f"return {RIGHT} + elsewhere", "leans on the notebook's variable `elsewhere`"),
    "taught": ("return torch.var(x)", "It calls `var`"),
    "unicode": ("return 'Ω\\u202e'", "came a string"),
    "taught through a lambda": ("return (lambda y: y.var())(x)", "It calls `var`"),
    "taught under another name": ("from torch import var as v\nreturn v(x)", "It calls `var`"),
}


# these take their time, or as much of the machine as they get
LONG = {
    "loop",
    "deaf loop",
    "sleep",
    "stack",
    "C's stack",
    "much output",
    "one long line",
    "memory",
    "forks",
    "threads",
}
LONG |= {"memory by and by", "huge result", "fills the disk", "deep", "much JSON", "network"}

BROKEN = {
    "syntax": ("def spread(x, base)\n    return x", "is not Python: expected ':' in line 1"),
    "null bytes": ("def spread(x, base):\n    return '\x00'", "is not Python"),
    "too deep": ("def spread(x, base):\n    return " + "(" * 5000 + ")" * 5000, "is not Python"),
    "a number": ("spread = 3", "Wanted the function `spread`; came an object of type int"),
    "another name": ("def spread_(x, base):\n    return x", "its cell does not define it"),
    "fails first": ("spread = 1 / 0", "ZeroDivisionError"),
    "return outside": ("def spread(x, base): return x\nreturn 3", ""),
    "loops at once": ("spread = [None for _ in iter(int, 1)]", "still running"),
    "exits at once": ("import os\nspread = os._exit(0)", "ended the process"),
}
