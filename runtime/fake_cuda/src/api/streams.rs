//! Streams, events and graphs.
use super::{handle, number};
use crate::gpu::call_in_context;
use crate::stream::Work;
use cudarc::driver::sys::{CUevent, CUgraph, CUgraphExec, CUresult, CUstream, CUstreamCaptureMode};
use std::ffi::{c_uint, c_ulonglong};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut CUstream, _flags: c_uint) -> CUresult {
    call_in_context(|gpu| {
        unsafe { stream.write(handle(gpu.streams.count)) };
        gpu.streams.count += 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamDestroy_v2(_stream: CUstream) -> CUresult {
    call_in_context(|gpu| gpu.finish())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamSynchronize(_stream: CUstream) -> CUresult {
    call_in_context(|gpu| gpu.finish())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamWaitEvent(stream: CUstream, event: CUevent, _flags: c_uint) -> CUresult {
    call_in_context(|gpu| gpu.wait(number(stream)?, number(event)?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamBeginCapture_v2(stream: CUstream, _mode: CUstreamCaptureMode) -> CUresult {
    call_in_context(|gpu| gpu.begin_capture(number(stream)?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph) -> CUresult {
    call_in_context(|gpu| {
        let number = gpu.end_capture(number(stream)?)?;
        unsafe { graph.write(handle(number)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(
    instance: *mut CUgraphExec,
    graph: CUgraph,
    _flags: c_ulonglong,
) -> CUresult {
    call_in_context(|_| {
        unsafe { instance.write(graph.cast()) };
        Ok(())
    })
}

/// Instances outlive the graph that they are made of.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphDestroy(_graph: CUgraph) -> CUresult {
    call_in_context(|_| Ok(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphExecDestroy(instance: CUgraphExec) -> CUresult {
    call_in_context(|gpu| {
        let number = number(instance)?;
        let graph = gpu.streams.graphs.get_mut(number).and_then(Option::take);
        graph.map(drop).ok_or(CUresult::CUDA_ERROR_INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphLaunch(instance: CUgraphExec, stream: CUstream) -> CUresult {
    call_in_context(|gpu| gpu.replay(number(stream)?, number(instance)?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut CUevent, _flags: c_uint) -> CUresult {
    call_in_context(|gpu| {
        gpu.streams.events.push(None);
        unsafe { event.write(handle(gpu.streams.events.len() - 1)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventDestroy_v2(_event: CUevent) -> CUresult {
    call_in_context(|_| Ok(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventRecord(event: CUevent, stream: CUstream) -> CUresult {
    call_in_context(|gpu| gpu.put(number(stream)?, Work::Event(number(event)?)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventSynchronize(event: CUevent) -> CUresult {
    call_in_context(|gpu| gpu.finish_event(number(event)?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) -> CUresult {
    call_in_context(|gpu| {
        let happened = |event| gpu.streams.events[number(event)?].ok_or(CUresult::CUDA_ERROR_NOT_READY);
        let (start, end) = (happened(start)?, happened(end)?);
        unsafe { milliseconds.write(end.saturating_duration_since(start).as_secs_f32() * 1e3) };
        Ok(())
    })
}
